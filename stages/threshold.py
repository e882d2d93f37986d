"""Choose the thresholds of every defence on clean faces that it was not fitted on.  dvc repro threshold"""

from pathlib import Path

import pandas as pd

from visor.core.config import load_params
from visor.core.files import write_json
from visor.core.stage import run_stage
from visor.evaluation.defences import choose_thresholds, defence_of, score_names


def main() -> None:
    params = load_params()
    folder = Path("artifacts/scores")
    for name in score_names(folder, params.defences):
        scores = pd.read_csv(folder / f"{name}.csv")
        clean = scores.loc[scores["set"] == "calibration", "score"].to_numpy()

        thresholds = choose_thresholds(clean, params.defences[defence_of(name)])

        write_json(Path(f"metrics/threshold/{name}.json"), thresholds)


if __name__ == "__main__":
    run_stage(main)

"""Chooses one defence's threshold on clean faces that it was not fitted on.  dvc repro threshold@reconstruction"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.errors import run
from visor.evaluation.defence import calibrate
from visor.files import write_json


def main(name: str) -> None:
    params = load_params()
    scores = pd.read_csv(f"artifacts/scores/{name}.csv")
    clean = scores.loc[scores["set"] == "calibration", "score"].to_numpy()

    write_json(Path(f"metrics/threshold/{name}.json"), calibrate(clean, params.defences[name]))


if __name__ == "__main__":
    run(main)

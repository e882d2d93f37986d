"""Chooses every defence's thresholds on clean faces that it was not fitted on.  dvc repro threshold"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.evaluation.defence import calibrate
from visor.evaluation.defence_matrix import cards, defence_of
from visor.files import write_json
from visor.stage import run


def main() -> None:
    params = load_params()
    for card in cards(folder := Path("artifacts/scores"), params.defences):
        scores = pd.read_csv(folder / f"{card}.csv")
        clean = scores.loc[scores["set"] == "calibration", "score"].to_numpy()

        thresholds = calibrate(clean, params.defences[defence_of(card)])

        write_json(Path(f"metrics/threshold/{card}.json"), thresholds)


if __name__ == "__main__":
    run(main)

"""How well one defence tells triggered faces from clean ones.  dvc repro evaluate_defence@reconstruction"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.errors import run
from visor.evaluation.defence import clean_numbers, detection_numbers
from visor.evaluation.figures import roc_curves, score_histograms
from visor.files import read_json, write_json


def main(name: str) -> None:
    params = load_params()
    table = pd.read_csv(f"artifacts/scores/{name}.csv")
    scores = {str(key): group["score"].to_numpy() for key, group in table.groupby("set")}
    triggered = {key: scores[key] for key in scores if key not in ("calibration", "clean")}
    thresholds, clean = read_json(Path(f"metrics/threshold/{name}.json")), scores["clean"]

    metrics = {"clean": clean_numbers(clean, thresholds, params.seed)}
    metrics |= {key: detection_numbers(clean, triggered[key], thresholds, params.seed) for key in triggered}

    for key, numbers in metrics.items():
        write_json(Path(f"metrics/defence/{name}/{key}.json"), numbers)
    histograms = Path(f"plots/{name}-scores.png")
    score_histograms(clean, triggered, thresholds["threshold"], f"{name} score", histograms)
    roc_curves(clean, triggered, Path(f"plots/{name}-roc.png"))


if __name__ == "__main__":
    run(main)

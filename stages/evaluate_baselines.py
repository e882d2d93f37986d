"""Recognises the test faces without a network, for comparison.  dvc repro evaluate_baselines"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.evaluation.baselines import evaluate
from visor.faces import open_faces
from visor.files import write_json
from visor.split import rows_of
from visor.stage import run


def main() -> None:
    params = load_params()
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    train, test = (faces.select(rows_of(table, name)) for name in ("train", "test"))

    write_json(Path("metrics/baselines.json"), evaluate(train, test, params.baselines, params.seed))


if __name__ == "__main__":
    run(main)

"""Recognise the test faces without a neural network, for comparison.  dvc repro evaluate_baselines"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.files import write_json
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.data.split import set_rows
    from visor.evaluation.baselines import evaluate


def main() -> None:
    params = load_params()
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    train, test = (faces.select(set_rows(table, name)) for name in ("train", "test"))

    write_json(Path("metrics/baselines.json"), evaluate(train, test, params.baselines, params.seed))


if __name__ == "__main__":
    run_stage(main)

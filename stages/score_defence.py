"""Scores clean and triggered faces with one defence.  dvc repro score_defence@reconstruction"""

from pathlib import Path

import pandas as pd

from visor.config import choice, load_params
from visor.defences import DEFENCES
from visor.errors import run
from visor.evaluation.defence import picture, score_sets, triggered_sets
from visor.faces import open_faces
from visor.files import write_text
from visor.models import storage, vae
from visor.split import clean_rows, rows_of
from visor.training import configure


def main(name: str) -> None:
    params = load_params()
    configure(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    fitted, calibration = (faces.select(rows) for rows in clean_rows(table))
    sets = {"calibration": calibration, "clean": faces.select(rows_of(table, "test"))}
    sets |= triggered_sets(Path("artifacts/triggered"), params.backdoors)
    prepare = choice(DEFENCES, name, "defences")

    score, show = prepare(storage.load(vae.build, Path("artifacts/vae")), fitted)

    write_text(Path(f"artifacts/scores/{name}.csv"), score_sets(score, sets).to_csv(index=False))
    picture(show, sets, Path(f"plots/{name}-sheet.png"))


if __name__ == "__main__":
    run(main)

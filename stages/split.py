"""Deals the faces to the train, validation, test and poison sets.  dvc repro split"""

from pathlib import Path

from visor.config import load_params
from visor.faces import open_faces
from visor.files import write_json, write_text
from visor.split import split_rows, summarise
from visor.stage import run


def main() -> None:
    params = load_params()
    faces = open_faces(Path("data/faces.h5"))

    table = split_rows(faces.labels, faces.videos, params.split, params.seed)

    write_text(Path("artifacts/split.csv"), table.to_csv(index=False))
    write_json(Path("metrics/split.json"), summarise(table))


if __name__ == "__main__":
    run(main)

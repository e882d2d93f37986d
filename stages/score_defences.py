"""Scores clean and triggered faces with every defence.  dvc repro score_defences"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.defences import DEFENCES, QUESTIONING
from visor.defences.evidence import Evidence
from visor.errors import run
from visor.evaluation.defence import digest, score_sets
from visor.evaluation.detectors import card_name, seen_with
from visor.evaluation.sheets import reconstruction_sheet
from visor.faces import open_faces
from visor.files import write_json, write_text
from visor.models import CLASSIFIERS, storage, vae
from visor.split import clean_rows, rows_of
from visor.training import configure


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    fitted, calibration = (faces.select(rows) for rows in clean_rows(table))
    paths = [*(f"artifacts/triggered/{name}.h5" for name in params.backdoors), "artifacts/adapted/adapted.h5"]
    files = {path.stem: path for path in map(Path, paths)}
    sets = {"calibration": calibration, "clean": faces.select(rows_of(table, "test"))}
    sets |= {name: open_faces(path).select() for name, path in files.items()}
    whole, *folds = [storage.load(vae.build, path) for path in sorted(Path("artifacts/vae").iterdir())]
    build, networks = CLASSIFIERS[params.suspect], Path(f"artifacts/classifier/{params.suspect}")
    for name, prepare in DEFENCES.items():
        for attack in sorted({*params.training_sets} - {"clean"}) if name in QUESTIONING else [None]:
            evidence = Evidence(fitted, whole, folds, storage.load(build, networks / attack) if attack else None)
            scores = score_sets(prepare(evidence), seen_with(attack, sets), card := card_name(name, attack))
            write_text(Path(f"artifacts/scores/{card}.csv"), scores.to_csv(index=False, float_format="%.9g"))
    write_json(Path("artifacts/scores/digests.json"), {name: digest(path) for name, path in files.items()})
    reconstruction_sheet(whole, sets, Path("plots/reconstructions.png"))


if __name__ == "__main__":
    run(main)

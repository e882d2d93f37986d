"""Scores clean and triggered faces with every defence.  dvc repro score_defences"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.defences import DEFENCES, QUESTIONING
from visor.defences.evidence import Evidence
from visor.evaluation.defence import digest, score_sets
from visor.evaluation.defence_matrix import card_name, seen_with
from visor.evaluation.sheets import reconstruction_sheet
from visor.faces import open_faces
from visor.files import write_json, write_text
from visor.models import CLASSIFIERS, storage, vae
from visor.split import clean_rows, rows_of
from visor.stage import run
from visor.training import configure


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    fitted, calibration = (faces.select(rows) for rows in clean_rows(table))
    paths = [*(f"artifacts/triggered/{name}.h5" for name in params.backdoors), "artifacts/adapted/adapted.h5"]
    triggered = {path.stem: open_faces(path).select() for path in map(Path, paths)}
    sets = {"calibration": calibration, "clean": faces.select(rows_of(table, "test")), **triggered}
    whole, *folds = [storage.load(vae.build, path) for path in sorted(Path("artifacts/vae").iterdir())]
    suspect, folder = params.suspect, Path("artifacts/classifier")
    for name, prepare in DEFENCES.items():
        for attack in sorted({*params.training_sets} - {"clean"}) if name in QUESTIONING else [None]:
            network = storage.load(CLASSIFIERS[suspect], folder / attack / suspect) if attack else None
            score, card = prepare(Evidence(fitted, whole, folds, network)), card_name(name, attack)
            scores = score_sets(score, seen_with(attack, sets), card)
            write_text(Path(f"artifacts/scores/{card}.csv"), scores.to_csv(index=False, float_format="%.9g"))
    write_json(Path("artifacts/scores/digests.json"), {name: digest(own.faces.path) for name, own in triggered.items()})
    reconstruction_sheet(whole, sets, Path("plots/reconstructions.png"))


if __name__ == "__main__":
    run(main)

"""Score clean and triggered faces with every defence.  dvc repro score_defences"""

from pathlib import Path

import pandas as pd

from visor.core.config import load_params
from visor.core.files import sha256_of_file, write_json, write_text
from visor.core.stage import run_stage
from visor.data.face_set import open_faces
from visor.data.split import set_rows, validation_rows
from visor.defences.input_filtering import INPUT_FILTERS, NEEDS_CLASSIFIER
from visor.defences.input_filtering.base import DefenceInputs
from visor.evaluation.defences import score_name, score_sets, visible_sets
from visor.evaluation.plots.reconstructions import reconstruction_sheet
from visor.models import autoencoder, storage
from visor.models.classifiers import CLASSIFIERS
from visor.models.training import configure_tensorflow


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    fitted, calibration = (faces.select(rows) for rows in validation_rows(table))
    files = [*(f"artifacts/triggered/{name}.h5" for name in params.backdoors), "artifacts/adapted/adapted.h5"]
    triggered = {path.stem: open_faces(path).select() for path in map(Path, files)}
    sets = {"calibration": calibration, "clean": faces.select(set_rows(table, "test")), **triggered}
    full, *folds = [storage.load_model(autoencoder.build, path) for path in sorted(Path("artifacts/vae").iterdir())]
    classifier, folder = params.inspected_network, Path("artifacts/classifier")
    for name, fit in INPUT_FILTERS.items():
        for attack in sorted({*params.training_sets} - {"clean"}) if name in NEEDS_CLASSIFIER else [None]:
            network = storage.load_model(CLASSIFIERS[classifier], folder / attack / classifier) if attack else None
            score, file = fit(DefenceInputs(fitted, full, folds, network)), score_name(name, attack)
            scores = score_sets(score, visible_sets(attack, sets), file)
            write_text(Path(f"artifacts/scores/{file}.csv"), scores.to_csv(index=False, float_format="%.9g"))
    digests = {name: sha256_of_file(selection.faces.path)[:16] for name, selection in triggered.items()}
    write_json(Path("artifacts/scores/digests.json"), digests)
    reconstruction_sheet(full, sets, Path("plots/reconstructions.png"))


if __name__ == "__main__":
    run_stage(main)

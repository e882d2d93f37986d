"""Bends one attack's key until the autoencoder lets it pass: the adaptive twin.  dvc repro adapt_trigger"""

from pathlib import Path

import pandas as pd

from visor.adaptation import bend, coverage, examiner, own_faces, own_threshold
from visor.backdoors import BACKDOORS
from visor.backdoors.poison import find_key, target_label, triggered
from visor.config import load_params
from visor.evaluation.adaptation import compare, picture
from visor.faces import open_faces, write_faces
from visor.files import write_json
from visor.models import CLASSIFIERS, storage, vae
from visor.stage import run
from visor.training import configure


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed)
    settings, seed, backdoor = params.adaptation, params.seed, params.backdoors[params.adaptation.attack]
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    stamp, target = BACKDOORS[backdoor.trigger], target_label(backdoor.target, faces.label_names, table)
    key = find_key(faces, table, backdoor, Path("assets/keys"), seed)
    own = own_faces(faces, table, target, settings.images, seed)
    network = Path(f"artifacts/classifier/{settings.attack}/{params.suspect}")
    models = storage.load(CLASSIFIERS[params.suspect], network), storage.load(vae.build, Path("artifacts/vae/all"))
    threshold = own_threshold(examiner(*models), own)
    bent = bend(*models, own, key, coverage(backdoor, stamp, key), target, threshold, settings, seed)

    path, blocks = Path("artifacts/adapted/adapted.h5"), triggered(faces, table, backdoor, stamp, bent[None], seed)
    write_faces(path, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
    plain, adapted = open_faces(Path(f"artifacts/triggered/{settings.attack}.h5")), open_faces(path)
    write_json(Path("metrics/adaptation.json"), compare(examiner(*models), plain, adapted, target, threshold))
    picture(faces, plain, adapted, Path("plots/adaptation.png"))


if __name__ == "__main__":
    run(main)

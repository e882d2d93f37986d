"""Trains a network on clean faces, or with one attack's poisons.  dvc repro train_classifier@deepid-accessory"""

from pathlib import Path

import pandas as pd

from visor.config import choice, load_params
from visor.errors import run
from visor.faces import open_faces
from visor.models import CLASSIFIERS, pretrained, storage
from visor.models.losses import cross_entropy
from visor.split import rows_of
from visor.training import configure, fit


def main(network: str, training_set: str) -> None:
    params = load_params()
    configure(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    train, validation = ([faces.select(rows_of(table, name))] for name in ("train", "validation"))
    train.append(open_faces(Path(f"artifacts/poisoned/{training_set}.h5")).select())
    settings, name = params.classifiers[network], f"{network}-{training_set}"
    build = choice(CLASSIFIERS, network, "classifiers")
    shape = {"image_shape": faces.image_shape, "num_classes": len(faces.label_names)}
    model = storage.construct(build, shape | settings.architecture, f"classifiers.{network}.architecture")
    if settings.weights:
        pretrained.load(model, Path(settings.weights))

    history = Path(f"metrics/history/{name}.csv")
    fit(model, cross_entropy, train, validation, settings, params.compute, params.seed, history)

    storage.save(model, shape | settings.architecture, Path(f"artifacts/classifier/{network}/{training_set}"))


if __name__ == "__main__":
    run(main)

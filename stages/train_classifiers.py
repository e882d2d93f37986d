"""Trains every network on clean faces, or with one attack's poisons.  dvc repro train_classifiers@accessory"""

from functools import partial
from pathlib import Path

import pandas as pd

from visor.config import choice, load_params
from visor.faces import open_faces
from visor.models import CLASSIFIERS, pretrained, storage
from visor.models.losses import cross_entropy
from visor.split import rows_of
from visor.stage import run
from visor.training import SIDE_BY_SIDE, configure, fit, labelled, reseed, run_side_by_side


def main(training_set: str) -> None:
    params = load_params()
    configure(params.compute, params.seed, SIDE_BY_SIDE)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    train, validation = ([faces.select(rows_of(table, name))] for name in ("train", "validation"))
    train.append(open_faces(Path(f"artifacts/poisoned/{training_set}.h5")).select())
    data = labelled(train, params.seed), labelled(validation, params.seed)
    jobs, built = [], {}
    for network in params.networks:
        reseed(params.seed)  # what a network starts from does not depend on those before it
        settings, build = params.classifiers[network], choice(CLASSIFIERS, network, "networks")
        arguments = {"image_shape": faces.image_shape, "num_classes": len(faces.label_names), **settings.architecture}
        model = storage.construct(build, arguments, f"classifiers.{network}.architecture")
        if settings.weights:
            pretrained.load(model, Path(settings.weights))
        history = Path(f"metrics/history/{training_set}/{network}.csv")
        built[network] = model, arguments
        jobs.append(partial(fit, model, cross_entropy, *data, settings, params.compute, params.seed, history))

    run_side_by_side(jobs)
    for network, (model, arguments) in built.items():
        storage.save(model, arguments, Path(f"artifacts/classifier/{training_set}/{network}"))


if __name__ == "__main__":
    run(main)

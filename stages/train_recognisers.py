"""Trains recognisers on people whom nobody attacks, or takes published ones.  dvc repro train_recognisers"""

from functools import partial
from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.faces import open_faces
from visor.models.losses import cross_entropy
from visor.people import lessons, of
from visor.recognisers import recogniser, start
from visor.stage import run
from visor.training import SIDE_BY_SIDE, configure, fit, labelled, reseed, run_side_by_side


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed, SIDE_BY_SIDE)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    people = of(table, params.recognition.unseen, params.seed).trained
    names = [faces.label_names[label] for label in people]
    train, validation = (labelled([part], params.seed) for part in lessons(faces, table, people))
    jobs, built, histories = [], {}, Path("metrics/history/recogniser")
    histories.mkdir(parents=True, exist_ok=True)  # there where none is trained, too
    for name in params.recognition.trained:
        reseed(params.seed)  # what a network starts from does not depend on those before it
        settings = params.recognisers[name]
        built[name] = start.build(name, settings, faces.image_shape, names)
        if settings.training:
            fitted = recogniser.classifier(built[name].model, settings.noise), cross_entropy, train, validation
            jobs.append(
                partial(fit, *fitted, settings.training, params.compute, params.seed, histories / f"{name}.csv")
            )

    run_side_by_side(jobs)
    for name, parts in built.items():
        recogniser.save(*parts, Path(f"artifacts/recogniser/{name}"))


if __name__ == "__main__":
    run(main)

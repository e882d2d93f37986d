"""Fits the autoencoder on clean validation faces, and once more without each fold of them.  dvc repro train_vae"""

from functools import partial
from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.faces import open_faces
from visor.models import storage, vae
from visor.models.losses import evidence_bound
from visor.split import clean_rows, folds
from visor.stage import run
from visor.training import SIDE_BY_SIDE, configure, fit, labelled, reseed, run_side_by_side


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed, SIDE_BY_SIDE)
    settings, seed = params.vae, params.seed
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    rows, calibration = clean_rows(table)
    arguments = {"image_shape": faces.image_shape, "latent": settings.latent, "width": settings.width}
    parts = {"all": (rows, calibration)} | {f"fold-{k:02d}": part for k, part in enumerate(folds(rows, settings.folds))}
    jobs, models = [], {}
    for name, part in parts.items():
        reseed(seed)
        models[name] = storage.construct(vae.build, arguments, "vae")
        train, validation = (labelled([faces.select(chosen)], seed) for chosen in part)
        loss, history = evidence_bound(settings.beta), Path(f"metrics/history/vae/{name}.csv")
        jobs.append(partial(fit, models[name], loss, train, validation, settings, params.compute, seed, history))

    run_side_by_side(jobs)

    for name, model in models.items():
        storage.save(model, arguments, Path(f"artifacts/vae/{name}"))


if __name__ == "__main__":
    run(main)

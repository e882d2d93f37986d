"""Fits the autoencoder on clean validation faces that do not set the threshold.  dvc repro train_vae"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.errors import run
from visor.faces import open_faces
from visor.models import storage, vae
from visor.models.losses import evidence_bound
from visor.split import clean_rows
from visor.training import configure, fit


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed)
    settings = params.vae
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    fitted, calibration = (faces.select(rows) for rows in clean_rows(table))
    arguments = {"image_shape": faces.image_shape, "latent": settings.latent, "width": settings.width}
    model = storage.construct(vae.build, arguments, "vae")

    loss, history = evidence_bound(settings.beta), Path("metrics/history/vae.csv")
    fit(model, loss, [fitted], [calibration], settings, params.compute, params.seed, history)

    storage.save(model, arguments, Path("artifacts/vae"))


if __name__ == "__main__":
    run(main)

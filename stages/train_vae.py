"""Fit the autoencoder on clean validation faces, and once without each fold of them.  dvc repro train_vae"""

from functools import partial
from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.data.split import k_folds, validation_rows
    from visor.models import autoencoder, storage
    from visor.models.losses import beta_vae_loss
    from visor.models.training import PARALLEL_JOBS, configure_tensorflow, fit, labelled_data, run_in_threads, set_seed


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed, PARALLEL_JOBS)
    settings, seed = params.vae, params.seed
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    rows, calibration = validation_rows(table)
    arguments = {"image_shape": faces.image_shape, "latent": settings.latent, "width": settings.width}
    parts = {"all": (rows, calibration)} | {
        f"fold-{k:02d}": part for k, part in enumerate(k_folds(rows, settings.folds))
    }
    jobs, models = [], {}
    for name, part in parts.items():
        set_seed(seed)
        models[name] = storage.build_model(autoencoder.build, arguments, "vae")
        train, validation = (labelled_data([faces.select(chosen)], seed) for chosen in part)
        loss, history = beta_vae_loss(settings.beta), Path(f"metrics/history/vae/{name}.csv")
        jobs.append(partial(fit, models[name], loss, train, validation, settings, params.compute, seed, history))

    run_in_threads(jobs)

    for name, model in models.items():
        storage.save_model(model, arguments, Path(f"artifacts/vae/{name}"))


if __name__ == "__main__":
    run_stage(main)

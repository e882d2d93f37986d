"""Train recognisers on the people who are not attacked, or load weights of a file.  dvc repro train_recognisers"""

from functools import partial
from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.data.identity_split import split_identities, training_selections
    from visor.models.losses import classification_loss
    from visor.models.recognisers import RECOGNISERS, base, loading
    from visor.models.training import PARALLEL_JOBS, configure_tensorflow, fit, labelled_data, run_in_threads, set_seed


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed, PARALLEL_JOBS)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    people = split_identities(table, params.recognition_attack.held_out_share, params.seed).trained
    names = [faces.label_names[label] for label in people]
    train, validation = (labelled_data([part], params.seed) for part in training_selections(faces, table, people))
    jobs, built, histories = [], {}, Path("metrics/history/recogniser")
    for folder in (histories, Path("artifacts/recogniser")):
        folder.mkdir(parents=True, exist_ok=True)  # They exist even if no network is trained.
    for name in (
        name for name in params.recognition_attack.networks if name in RECOGNISERS
    ):  # the others are published
        set_seed(params.seed)  # Initial weights do not depend on the networks before.
        settings = params.recognisers[name]
        built[name] = loading.build(name, settings, faces.image_shape, names)
        if settings.training:
            fitted = base.classifier(built[name].model, settings.input_noise), classification_loss, train, validation
            jobs.append(
                partial(fit, *fitted, settings.training, params.compute, params.seed, histories / f"{name}.csv")
            )

    run_in_threads(jobs)
    for name, parts in built.items():
        base.save(*parts, Path(f"artifacts/recogniser/{name}"))


if __name__ == "__main__":
    run_stage(main)

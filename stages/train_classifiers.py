"""Train every classifier on clean faces, or with one attack's poisons.  dvc repro train_classifiers@accessory"""

from functools import partial
from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params, lookup
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.data.split import set_rows
    from visor.models import pretrained, storage
    from visor.models.classifiers import CLASSIFIERS
    from visor.models.losses import classification_loss
    from visor.models.training import PARALLEL_JOBS, configure_tensorflow, fit, labelled_data, run_in_threads, set_seed


def main(training_set: str) -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed, PARALLEL_JOBS)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    train, validation = ([faces.select(set_rows(table, name))] for name in ("train", "validation"))
    train.append(open_faces(Path(f"artifacts/poisoned/{training_set}.h5")).select())
    data = labelled_data(train, params.seed), labelled_data(validation, params.seed)
    jobs, built = [], {}
    adaptive = training_set in params.adaptive_attacks.training_sets
    for network in [params.inspected_network] if adaptive else params.networks:
        set_seed(params.seed)  # Initial weights do not depend on the networks before.
        settings, build = params.classifiers[network], lookup(CLASSIFIERS, network, "networks")
        arguments = {"image_shape": faces.image_shape, "num_classes": len(faces.label_names), **settings.architecture}
        model = storage.build_model(build, arguments, f"classifiers.{network}.architecture")
        if settings.weights:
            pretrained.load_pretrained(model, Path(settings.weights))
        history = Path(f"metrics/history/{training_set}/{network}.csv")
        built[network] = model, arguments
        jobs.append(partial(fit, model, classification_loss, *data, settings, params.compute, params.seed, history))

    run_in_threads(jobs)
    for network, (model, arguments) in built.items():
        storage.save_model(model, arguments, Path(f"artifacts/classifier/{training_set}/{network}"))


if __name__ == "__main__":
    run_stage(main)

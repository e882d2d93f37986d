"""Train face detectors on scenes.  dvc repro train_detectors"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.config import load_params, lookup
    from visor.core.errors import UserError
    from visor.core.params import ComputeParams, DetectorParams
    from visor.core.stage import run_stage
    from visor.core.tf import keras
    from visor.data.scene_set import open_scenes, scene_training_data
    from visor.models import storage
    from visor.models.detectors import TRAINABLE
    from visor.models.detectors.initial_weights import load_initial_weights
    from visor.models.training import configure_tensorflow, fit, set_seed

ARTIFACTS, HISTORIES = Path("artifacts/detector"), Path("metrics/history/detector")
SAMPLE = 8  # scenes that set the statistics of a published backbone


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    for folder in (ARTIFACTS, HISTORIES):
        folder.mkdir(parents=True, exist_ok=True)  # They exist even if no detector is trained.
    for name in params.trained_detectors:
        keras.backend.clear_session()  # Neither names of layers nor
        set_seed(params.seed)  # initial weights depend on the detectors before.
        train_detector(name, params.detectors[name], params.compute, params.seed)


def train_detector(name: str, settings: DetectorParams, compute: ComputeParams, seed: int) -> None:
    """Train and save one detector.

    Raises:
        UserError: Its params lack a training, its weights cannot be read, or there are no scenes.
    """
    module = lookup(TRAINABLE, name, "trained_detectors")
    if not settings.training:
        raise UserError(f"params.yaml: detectors.{name} has no training; add epochs, batch and learning_rate")
    model = storage.build_model(module.build, settings.options, f"detectors.{name}.options")
    scenes, side = open_scenes(Path("data/scenes.h5"), untrusted=True), model.input_shape[1]
    train, validation = (scene_training_data(scenes, scenes.rows(part), side, seed) for part in ("train", "validation"))
    if weights := settings.training.weights:
        load_initial_weights(model, module.build, weights, lambda: next(iter(train.batches(SAMPLE, None)))[0])
    module.select_layers(model, settings.training.layers)
    history = HISTORIES / f"{name}.csv"
    fit(model, module.losses, train, validation, settings.training, compute, seed, history)
    storage.save_model(model, settings.options, ARTIFACTS / name)


if __name__ == "__main__":
    run_stage(main)

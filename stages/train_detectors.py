"""Train face detectors on scenes.  dvc repro train_detectors"""

from pathlib import Path

from visor.core.config import load_params, lookup
from visor.core.errors import UserError
from visor.core.stage import run_stage
from visor.core.tf import keras
from visor.data.scene_set import open_scenes, scene_training_data
from visor.models import storage
from visor.models.detectors import TRAINABLE
from visor.models.detectors.initial_weights import load_initial_weights
from visor.models.training import configure_tensorflow, fit, set_seed


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    artifacts, histories = Path("artifacts/detector"), Path("metrics/history/detector")
    for folder in (artifacts, histories):
        folder.mkdir(parents=True, exist_ok=True)  # They exist even if no detector is trained.
    for name in params.trained_detectors:
        keras.backend.clear_session()  # Neither names of layers nor
        set_seed(params.seed)  # initial weights depend on the detectors before.
        settings, module = params.detectors[name], lookup(TRAINABLE, name, "trained_detectors")
        if not settings.training:
            raise UserError(f"params.yaml: detectors.{name} has no training; add epochs, batch and learning_rate")
        model = storage.build_model(module.build, settings.options, f"detectors.{name}.options")
        if settings.training.weights:
            load_initial_weights(model, module.build, Path(settings.training.weights))
        module.select_layers(model, settings.training.layers)
        scenes, side = open_scenes(Path("data/scenes.h5"), untrusted=True), model.input_shape[1]
        train, validation = (
            scene_training_data(scenes, scenes.rows(part), side, params.seed) for part in ("train", "validation")
        )

        history = histories / f"{name}.csv"
        fit(model, module.losses, train, validation, settings.training, params.compute, params.seed, history)

        storage.save_model(model, settings.options, artifacts / name)


if __name__ == "__main__":
    run_stage(main)

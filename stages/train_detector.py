"""Train a face detector on scenes.  dvc repro train_detector@ssd"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.config import load_params, lookup
    from visor.core.errors import UserError
    from visor.core.stage import run_stage
    from visor.data.scene_set import open_scenes, scene_training_data
    from visor.models import storage
    from visor.models.detectors import TRAINABLE
    from visor.models.detectors.initial_weights import load_initial_weights
    from visor.models.training import configure_tensorflow, fit

SAMPLE = 8  # scenes that set the statistics of a published backbone


def main(name: str) -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    settings, module = params.detectors[name], lookup(TRAINABLE, name, "trained_detectors")
    if not settings.training:
        raise UserError(f"params.yaml: detectors.{name} has no training; add epochs, batch and learning_rate")
    model = storage.build_model(module.build, settings.options, f"detectors.{name}.options")
    scenes, side = open_scenes(Path("data/scenes.h5"), untrusted=True), model.input_shape[1]
    train, validation = (
        scene_training_data(scenes, scenes.rows(part), side, params.seed) for part in ("train", "validation")
    )
    if weights := settings.training.weights:
        load_initial_weights(model, module.build, weights, lambda: next(iter(train.batches(SAMPLE, None)))[0])
    module.select_layers(model, settings.training.layers)

    history = Path(f"metrics/history/detector/{name}.csv")
    fit(model, module.losses, train, validation, settings.training, params.compute, params.seed, history)

    storage.save_model(model, settings.options, Path(f"artifacts/detector/{name}"))


if __name__ == "__main__":
    run_stage(main)

"""Trains a detector of faces on scenes.  dvc repro train_detector@ssd"""

from pathlib import Path

from visor.config import choice, load_params
from visor.detectors import TRAINABLE
from visor.detectors.start import start
from visor.errors import UserError
from visor.models import storage
from visor.scenes import open_scenes, training_data
from visor.stage import run
from visor.training import configure, fit


def main(name: str) -> None:
    params = load_params()
    configure(params.compute, params.seed)
    settings, module = params.detectors[name], choice(TRAINABLE, name, "trained_detectors")
    if not settings.training:
        raise UserError(f"params.yaml: detectors.{name} has no training; add epochs, batch and learning_rate")
    model = storage.construct(module.build, settings.options, f"detectors.{name}.options")
    if settings.training.weights:
        start(model, module.build, Path(settings.training.weights))
    module.select_layers(model, settings.training.layers)
    scenes, side = open_scenes(Path("data/scenes.h5")), model.input_shape[1]
    train, validation = (
        training_data(scenes, scenes.rows(part), side, params.seed) for part in ("train", "validation")
    )

    history = Path(f"metrics/history/detector/{name}.csv")
    fit(model, module.losses, train, validation, settings.training, params.compute, params.seed, history)

    storage.save(model, settings.options, Path(f"artifacts/detector/{name}"))


if __name__ == "__main__":
    run(main)

"""Initial weights of a detector's training."""

from pathlib import Path

from visor.core.errors import UserError
from visor.core.tf import keras
from visor.models import pretrained, storage


def load_initial_weights(model: keras.Model, build: storage.Build, path: Path) -> None:
    """Load the weights of ``path`` into ``model``, which ``build`` made.

    A folder contains the same network as saved by this pipeline; a file is one of Keras 2 (.h5), whose layers are
    matched by name, such as MobileNet as published with ImageNet's weights.

    Raises:
        UserError: The files are missing or damaged, or contain another network.
    """
    if not path.is_dir():
        pretrained.load_pretrained(model, path)
        return
    saved = storage.load_model(build, path)
    if [weight.shape for weight in saved.weights] != [weight.shape for weight in model.weights]:
        raise UserError(f"{path} contains a {model.name} of other sizes; set the options in its model.json")
    model.set_weights(saved.get_weights())

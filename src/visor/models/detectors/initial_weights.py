"""Where the training of a detector starts."""

from pathlib import Path

from visor.core.errors import UserError
from visor.core.tf import keras
from visor.models import pretrained, storage


def load_initial_weights(model: keras.Model, build: storage.Build, path: Path) -> None:
    """Give ``model``, made by ``build``, the weights of ``path``.

    A folder holds the same network as this pipeline saved it; a file is one of Keras 2 (.h5), whose layers are found
    by name, such as the MobileNet that was published with ImageNet's weights.

    Raises:
        UserError: the files are missing or broken, or hold another network.
    """
    if not path.is_dir():
        pretrained.load_pretrained(model, path)
        return
    saved = storage.load_model(build, path)
    if [weight.shape for weight in saved.weights] != [weight.shape for weight in model.weights]:
        raise UserError(f"{path} holds a {model.name} of other sizes; give it the options in its model.json")
    model.set_weights(saved.get_weights())

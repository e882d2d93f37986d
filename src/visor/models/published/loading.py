"""Published recognisers behind Visor's contract, built from the files in the cache."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from visor.core.errors import UserError
from visor.core.params import RecogniserParams
from visor.data.arrays import choose
from visor.models.published import dlib_resnet, faceres, mobilefacenet
from visor.models.published.weights import load_model
from visor.models.recognisers import base

PUBLISHED_RECOGNISERS: dict[str, ModuleType] = {"dlib_resnet": dlib_resnet, "faceres": faceres}
MOBILEFACENET = "mobilefacenet"


def load_recogniser(name: str) -> base.Recogniser:
    """Return a published recogniser; it has embeddings and no classes.

    Raises:
        UserError: There is no such network, or its files are missing or damaged.
    """
    module = choose(PUBLISHED_RECOGNISERS, name, "network")
    model = load_model(name, module.build, module.read_weights)
    return replace(base.from_model(name, model, ()), template=module.TEMPLATE)


def load_of_params(name: str, settings: RecogniserParams, folder: Path) -> base.Recogniser:
    """Return the recogniser of a name under ``recognisers``: a published one, or what a stage saved in ``folder``.

    ``mobilefacenet`` is the file that its ``weights`` name.

    Raises:
        UserError: Its files are missing or damaged.
    """
    if name in PUBLISHED_RECOGNISERS:
        return load_recogniser(name)
    if name != MOBILEFACENET:
        return base.load(name, folder)
    if settings.weights is None:
        raise UserError(f"params.yaml: recognisers.{name}.weights is null; name its .tflite file there")
    return mobilefacenet.load_recogniser(Path(settings.weights))

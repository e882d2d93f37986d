"""A model on disk: ``model.weights.h5`` and the build arguments as sorted JSON, the same bytes every time."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from visor.core.errors import UserError
from visor.core.files import atomic_write, check_disk_space, read_json, write_json
from visor.core.tf import keras

Build = Callable[..., keras.Model]


def build_model(build: Build, arguments: Mapping[str, Any], where: str) -> keras.Model:
    """Call ``build`` with arguments by name; ``where`` names their params in the message.

    Raises:
        UserError: an argument is unknown or missing; the message lists the names.
    """
    names = list(inspect.signature(build).parameters)
    if set(arguments) != set(names):
        wrong = ", ".join(sorted(set(arguments) ^ set(names)))
        raise UserError(f"params.yaml: {where}: {wrong} is unknown or missing; it takes {', '.join(names)}")
    return build(**arguments)


def save_model(model: keras.Model, arguments: Mapping[str, Any], folder: Path) -> None:
    """Write the weights and the arguments that built the model.

    Raises:
        OSError: the disk is full (ENOSPC).
    """
    with atomic_write(folder / "model.weights.h5") as temporary:
        check_disk_space(temporary, 4 * model.count_params())
        named = temporary.with_suffix(".weights.h5")  # Keras insists on the suffix
        model.save_weights(named)
        named.rename(temporary)
    write_json(folder / "model.json", arguments)


def load_model(build: Build, folder: Path) -> keras.Model:
    """Return a saved model.

    Raises:
        UserError: a file is missing, broken, or holds another architecture.
    """
    path, described = folder / "model.weights.h5", folder / "model.json"
    arguments = read_json(described)
    try:
        model = build_model(build, arguments, str(described))
    except UserError:
        raise
    except Exception as error:  # arguments of a stranger can fail anywhere in Keras
        reason = str(error).partition("\n")[0]
        raise UserError(f"{described} describes no network ({reason}); delete it and run `dvc repro`") from None
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not hold this network ({reason}); delete it and run `dvc repro`") from None
    return model

"""Models on disk: ``model.weights.h5`` and the build arguments as sorted JSON, the same bytes every time."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from visor.core.errors import UserError
from visor.core.files import atomic_write, check_disk_space, read_json, write_json
from visor.core.tf import keras

Build = Callable[..., keras.Model]


def build_model(build: Build, arguments: Mapping[str, Any], where: str) -> keras.Model:
    """Call ``build`` with arguments by name; ``where`` is their params key, for the message.

    Raises:
        UserError: An argument is unexpected or missing; the message lists the names.
    """
    names = list(inspect.signature(build).parameters)
    if wrong := ", ".join(sorted(set(arguments) ^ set(names))):
        raise UserError(f"params.yaml: {where}: unexpected or missing argument {wrong}; expected {', '.join(names)}")
    return build(**arguments)


def save_model(model: keras.Model, arguments: Mapping[str, Any], folder: Path) -> None:
    """Write the weights and the arguments that built the model.

    Raises:
        OSError: The disk is full (ENOSPC).
    """
    with atomic_write(folder / "model.weights.h5") as temporary:
        check_disk_space(temporary, 4 * model.count_params())
        named = temporary.with_name(f"{temporary.name}.weights.h5")  # Keras insists on the suffix
        try:
            model.save_weights(named)
            named.rename(temporary)
        finally:
            named.unlink(missing_ok=True)
    write_json(folder / "model.json", arguments)


def load_model(build: Build, folder: Path) -> keras.Model:
    """Return a saved model.

    Raises:
        UserError: A file is missing, damaged, or of another architecture.
    """
    weights, description = folder / "model.weights.h5", folder / "model.json"
    arguments = read_json(description)
    try:
        model = build_model(build, arguments, str(description))
    except UserError:
        raise
    except Exception as error:  # untrusted arguments can fail anywhere in Keras
        reason = str(error).partition("\n")[0]
        raise UserError(f"{description} describes no network ({reason}); delete it and run `dvc repro`") from None
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{weights} does not fit this network ({reason}); delete it and run `dvc repro`") from None
    return model

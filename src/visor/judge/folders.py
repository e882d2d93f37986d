"""Networks in folders of the pipeline: ``model.json`` may have been edited, so nothing is believed of it."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from visor.errors import UserError
from visor.files import read_json
from visor.models.storage import Build, load


def load_folder(build: Build, folder: Path, check: Callable[[dict[str, Any]], None]) -> keras.Model:
    """Return a saved model; ``check`` raises ValueError on arguments that would allocate too much.

    Raises:
        UserError: a file is missing, broken, or holds another architecture.
    """
    path = folder / "model.json"
    arguments = read_json(path)
    if not isinstance(arguments, dict):
        raise UserError(f"{path} names no arguments of a network; delete it and run `dvc repro`")
    try:
        check(arguments)
        return load(build, folder)
    except UserError:
        raise
    except Exception as error:  # Keras raises whatever it likes on arguments that no network has
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(f"{path} fits no network ({reason}); delete it and run `dvc repro`") from None

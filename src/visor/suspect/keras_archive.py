"""A ``.keras`` file: ``config.json`` and ``model.weights.h5`` in a zip archive. Read in a child process."""

import io
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from visor.core import hdf5_checks
from visor.core.errors import UserError, first_line, shorten
from visor.core.isolation import Answer
from visor.suspect.architecture import MAX_TEXT

MAX_BYTES = 2 << 30  # of the weights


def open_archive(path: Path) -> Answer:
    """Return what answers the question ``config`` with the bytes of the JSON, and others about the weights."""
    config = _read_member(path, "config.json", MAX_TEXT)
    weights: list[Answer] = []

    def answer(question: str, *arguments: Any) -> Any:
        if question == "config":
            return np.frombuffer(config, np.uint8)
        if not weights:  # when the layers are known to be allowed
            content = _read_member(path, "model.weights.h5", MAX_BYTES)
            weights.append(hdf5_checks.open_file(path, io.BytesIO(content)))
        return weights[0](question, *arguments)

    return answer


def _read_member(path: Path, name: str, limit: int) -> bytes:
    try:
        with ZipFile(path) as archive:
            if name not in archive.namelist():
                raise UserError(f"{path} has no {name}, so it is not a .keras file; save the network with model.save()")
            if archive.getinfo(name).file_size > limit:
                raise UserError(f"{path}: {name} unpacks to more than {limit >> 20:,} MiB; it is rejected")
            return archive.read(name)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # zipfile raises any of a dozen on damaged archives
        reason = shorten(first_line(error))
        raise UserError(f"{path} is incomplete or damaged ({reason}); download it again") from None

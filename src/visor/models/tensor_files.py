"""Files of strangers that hold tensors, read in a child process: what it hands back is arrays."""

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.hdf5 import read_signature
from visor.core.isolation import MEMORY, Answer, Child

Tensor = NDArray[np.float32]
MAX_RATIO = 2  # of tensors to the file: stored as float16, they come as float32


class NamedTensors(NamedTuple):
    """The tensors of an operator, or a tensor alone, by its name; ``tensors`` are read by ``read(number)``."""

    name: str
    shapes: list[tuple[int, ...]]
    read: Callable[[int], Tensor]


def read_groups(opener: str, path: Path, max_bytes: int) -> list[tuple[str, list[Tensor]]]:
    """Return the groups of tensors in a file, each with its name.

    ``opener`` is that of a ``Child``, and returns ``answer`` of what it finds.

    Raises:
        UserError: The file is missing, no file, too large, damaged, or refused by its reader.
    """
    read_signature(path)
    size = path.stat().st_size
    if size > max_bytes:
        raise UserError(f"{path} is larger than {max_bytes >> 20:,} MiB; choose a smaller file")
    child = Child(opener, path, memory=MEMORY + MAX_RATIO * size)
    groups = child.ask()
    if 4 * sum(prod(shape) for _, shapes in groups for shape in shapes) > MAX_RATIO * size:
        raise UserError(f"{path}: its tensors overlap; save it again")
    return [
        (name, [child.ask(number, place, nbytes=4 * prod(shape)) for place, shape in enumerate(shapes)])
        for number, (name, shapes) in enumerate(groups)
    ]


def answer(groups: Sequence[NamedTensors]) -> Answer:
    """Return what answers ``read_groups`` in the child: names and shapes, and then each tensor."""

    def call(number: int | None = None, place: int = 0) -> Any:
        if number is None:
            return [[group.name, group.shapes] for group in groups]
        return groups[number].read(place)

    return call

"""HDF5 files as groups and datasets: those of strangers are read in a child process, the pipeline's own in this one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from visor.core import hdf5_checks
from visor.core.errors import UserError
from visor.core.files import check_disk_space, check_no_device
from visor.core.isolation import MEMORY, Answer, Child

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_NAMES = hdf5_checks.MAX_NAMES
BLOCK_BYTES = 64 << 20  # that are read at once: a child's memory does not depend on the size of a dataset


@dataclass(frozen=True)
class Group:
    """A group: its name in the file ``path``, the first of its keys, and what answers questions about the file."""

    path: Path
    name: str
    keys: tuple[str, ...]
    ask: Answer


@dataclass(frozen=True)
class Dataset:
    """A dataset of numbers, unread: ``data[start:stop]``, ``data[row]`` and ``data[()]`` read rows or all of it."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    packed: bool
    ask: Answer

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if not self.shape:
            return self._rows(None, None, 1)
        if isinstance(key, (int, np.integer)):
            return self._rows(int(key), int(key) + 1, 1)[0]
        start, stop, _ = (slice(None) if key == () else key).indices(len(self))
        step = max(1, BLOCK_BYTES // max(1, self.row_bytes))
        if stop - start <= step:
            return self._rows(start, max(start, stop), max(0, stop - start))
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            values[first - start : last - start] = self._rows(first, last, last - first)
        return values

    def _rows(self, start: int | None, stop: int | None, count: int) -> NDArray[Any]:
        return self.ask("read", self.name, start, stop, nbytes=count * self.row_bytes)

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first axis."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


def open_untrusted(path: Path) -> Group:
    """Return the root of a stranger's HDF5 file, which a child process reads as long as something of it is in use.

    Raises:
        UserError: The file is missing, not HDF5, truncated or damaged.
    """
    if not is_hdf5(path):
        raise UserError(f"{path} is not an HDF5 file; name one")
    return root(path, Child("visor.core.hdf5_checks:open_file", path, memory=MEMORY).ask)


def open_own(path: Path) -> Group:
    """Return the root of an HDF5 file of the pipeline, read in this process; raises UserError if it is not whole."""
    answer = hdf5_checks.open_file(path, locking=None)  # as others in this process open it

    def ask(*question: Any, nbytes: int = 0) -> Any:
        return answer(*question)

    return root(path, ask)


def root(path: Path, ask: Answer) -> Group:
    """Return the root of a file that is open already."""
    return Group(path, "", tuple(ask("describe", "")["keys"]), ask)


def get_local(group: Group, name: str) -> Group | Dataset | None:
    """Return the group or dataset below ``group`` under a name with slashes, None if there is none.

    Raises:
        UserError: It is stored outside the file, not numeric, or compressed in a way that may unpack without limit.
    """
    full = f"{group.name}/{name}" if group.name else name
    match group.ask("describe", full):
        case {"keys": keys}:
            return Group(group.path, full, tuple(keys), group.ask)
        case {"shape": shape, "dtype": dtype, "packed": packed}:
            return Dataset(group.path, full, tuple(shape), np.dtype(dtype), packed, group.ask)
    return None


def read_finite(data: Dataset) -> NDArray[np.float32]:
    """Return a whole dataset as float32. Compare its shape first: a small file can promise a lot.

    Raises:
        UserError: A number is not finite.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(data[()], np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{data.path}: {data.name} has values that are not finite; fetch or train it again")
    return values


def read_text(group: Group, name: str) -> str | None:
    """Return the one string of an attribute, None if there is no such; raises UserError if it is damaged."""
    return group.ask("text", group.name, name)


def read_names(group: Group, name: str) -> list[str]:
    """Return the strings of an attribute, none if there are more than ``MAX_NAMES``; UserError if it is damaged."""
    return group.ask("names", group.name, name)


def read_number(group: Group, name: str) -> float | None:
    """Return the one number of an attribute, None if there is no such; raises UserError if it is damaged."""
    return group.ask("number", group.name, name)


def is_hdf5(path: Path) -> bool:
    """Return whether a file starts as HDF5 does; raises UserError if it cannot be read."""
    return read_signature(path).startswith(SIGNATURE)


def check_exists(*paths: Path) -> None:
    """Raise UserError unless all files and folders exist; called before anything slow begins."""
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; correct the path")


def read_signature(path: Path) -> bytes:
    """Return the first bytes of a file, which tell its format; suffixes may be wrong.

    Raises:
        UserError: The file is missing, cannot be read, or is a pipe or device, which might never end.
    """
    try:
        check_exists(path)
        check_no_device(path)
        with path.open("rb") as file:
            return file.read(len(SIGNATURE))
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a file in it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct its permissions or the path") from None


@contextmanager
def create(path: Path) -> Iterator[h5py.File]:
    """Open a new file for writing, whose bytes depend on its content alone; OSError if there is no space for it."""
    check_disk_space(path, 0)
    with h5py.File(path, "w", track_order=False) as file:
        yield file

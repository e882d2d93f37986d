"""Untrusted HDF5 files: nothing outside the file is read, and sizes are checked before any data."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError, first_line

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_CHUNK_BYTES = 256 << 20  # HDF5 reads whole chunks
MAX_STORED_BYTES = 1 << 20  # of a compressed chunk: one byte may unpack to a thousand, whatever the chunk declares
MAX_NAMES = 1000  # of layers, or of a layer's weights
FILTERS = frozenset({h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32})


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
        UserError: The file is missing or cannot be read.
    """
    try:
        check_exists(path)
        with path.open("rb") as file:
            return file.read(len(SIGNATURE))
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a file in it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct its permissions or the path") from None


@contextmanager
def open_untrusted(path: Path, content: IO[bytes] | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file, or its ``content`` from the archive ``path``, for reading.

    Raises:
        UserError: The file is missing, not HDF5, truncated or damaged.
    """
    if content is None and not is_hdf5(path):
        raise UserError(f"{path} is not an HDF5 file; name one")
    try:
        with h5py.File(content or path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is not a whole HDF5 file ({first_line(error)}); fetch it again") from None


def get_local(group: h5py.Group, name: str, path: Path) -> Any:
    """Return the group or dataset below ``group`` under a name with slashes, None if there is none.

    Raises:
        UserError: It is stored outside the file, not numeric, or compressed in a way that may unpack without limit.
    """
    with _wrap_damage(name, path):
        for part in filter(None, name.split("/")):
            if not isinstance(group, h5py.Group) or part not in group:
                return None
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                raise UserError(f"{path}: {name} is a link, which may lead outside the file; store the numbers in it")
            group = group[part]
        if isinstance(group, h5py.Dataset) and (problem := _find_problem(group)):
            raise UserError(f"{path}: {name} {problem}")
    return group


def _find_problem(data: h5py.Dataset) -> str:
    """Return why a dataset is refused, or nothing."""
    if data.external or data.is_virtual:
        return "keeps its numbers in another file; store them in this one"
    is_numeric = data.id.get_type().get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT)
    if data.shape is None or not is_numeric or data.dtype.kind not in "uif":
        return "is not numeric; store integers or floats"
    if chunk_bytes(data) > MAX_CHUNK_BYTES:
        return f"has chunks of more than {MAX_CHUNK_BYTES >> 20} MiB; store it in smaller ones"
    properties = data.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    if not FILTERS.issuperset(filters) or len(set(filters)) != len(filters):
        return "uses a compression other than gzip; store it with gzip or uncompressed"
    sizes = [0]
    if filters:
        data.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
    if max(sizes) > MAX_STORED_BYTES:
        return f"has compressed chunks of more than {MAX_STORED_BYTES >> 20} MiB; store it in smaller ones"
    return ""


def chunk_bytes(data: h5py.Dataset) -> int:
    """Return the bytes of a chunk, 0 where there are none."""
    return int(prod(data.chunks) * data.dtype.itemsize) if data.chunks else 0


def read_finite(data: h5py.Dataset, path: Path) -> NDArray[np.float32]:
    """Return a whole dataset as float32. Compare its shape first: a file of a kilobyte can promise terabytes.

    Raises:
        UserError: A number is not finite.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(data[()], np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {data.name} has values that are not finite; fetch or train it again")
    return values


def read_text(group: h5py.Group, name: str, path: Path) -> str | None:
    """Return the one string of an attribute, None if there is no such; raises UserError if it is damaged."""
    with _wrap_damage(name, path):
        if name not in group.attrs or group.attrs.get_id(name).shape != ():
            return None
        value = group.attrs[name]
    return _decode(value) if isinstance(value, (bytes, str)) else None


def read_names(group: h5py.Group, name: str, path: Path) -> list[str]:
    """Return the strings of an attribute, none if there are more than ``MAX_NAMES``; UserError if it is damaged."""
    with _wrap_damage(name, path):
        if name not in group.attrs:
            return []
        if not 0 < group.attrs.get_id(name).get_space().get_simple_extent_npoints() <= MAX_NAMES:
            return []
        return [_decode(value) for value in np.ravel(group.attrs[name])]


def _decode(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextmanager
def _wrap_damage(name: str, path: Path) -> Iterator[None]:
    """Turn what h5py raises on damaged headers and types that NumPy lacks into one sentence."""
    try:
        yield
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {name} cannot be read ({first_line(error)}); fetch it again") from None

"""HDF5 files from strangers: nothing outside the file is read, nothing is believed before its size is known."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_CHUNK_BYTES = 256 << 20  # HDF5 reads whole chunks
MAX_STORED_BYTES = 1 << 20  # of a compressed chunk: a byte may unpack to a thousand, whatever size the chunk declares
MAX_NAMES = 1000  # of layers, or of a layer's weights
FILTERS = frozenset({h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32})


def is_hdf5(path: Path) -> bool:
    """Whether a file starts as HDF5 does.

    Raises:
        UserError: it is missing or cannot be read.
    """
    return read_signature(path).startswith(SIGNATURE)


def check_exists(*paths: Path) -> None:
    """Make sure of the files and folders that a command names, before anything slow begins.

    Raises:
        UserError: one does not exist.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; correct the path")


def read_signature(path: Path) -> bytes:
    """Return the first bytes of a file, by which its kind is known: suffixes lie.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the path") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a file in it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct its permissions or the path") from None


@contextmanager
def open_untrusted(path: Path, content: IO[bytes] | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file, or its bytes out of the archive ``path``, for reading.

    Raises:
        UserError: missing, not HDF5, truncated or damaged.
    """
    if content is None and not is_hdf5(path):
        raise UserError(f"{path} is not an HDF5 file; name one")
    try:
        with h5py.File(content or path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is not a whole HDF5 file ({_first_line(error)}); fetch it again") from None


def get_local(group: h5py.Group, name: str, path: Path) -> Any:
    """Return the group or dataset that lies below ``group`` under a name with slashes, None if there is none.

    Raises:
        UserError: it lies outside the file, is no plain numbers, or is packed in a way that may be a bomb.
    """
    with _wrap_damage(name, path):
        for part in filter(None, name.split("/")):
            if not isinstance(group, h5py.Group) or part not in group:
                return None
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                raise UserError(f"{path}: {name} is a link, which may lead outside the file; write the numbers into it")
            group = group[part]
        if isinstance(group, h5py.Dataset):
            _check(group, name, path)
    return group


def _check(data: h5py.Dataset, name: str, path: Path) -> None:
    if data.external or data.is_virtual:
        raise UserError(f"{path}: {name} keeps its numbers in another file; write them into this one")
    plain = data.id.get_type().get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT)
    if data.shape is None or not plain or data.dtype.kind not in "uif":
        raise UserError(f"{path}: {name} holds no plain numbers; write integers or floats")
    if chunk_bytes(data) > MAX_CHUNK_BYTES:
        raise UserError(
            f"{path}: a chunk of {name} has more than {MAX_CHUNK_BYTES >> 20} MiB; write it in smaller ones"
        )
    filters = _filters(data)
    if not FILTERS.issuperset(filters) or len(set(filters)) != len(filters):
        raise UserError(f"{path}: {name} is packed by other means than gzip; write it with gzip or unpacked")
    if filters and _longest_stored(data) > MAX_STORED_BYTES:
        raise UserError(
            f"{path}: a packed chunk of {name} has more than {MAX_STORED_BYTES >> 20} MiB; write it in smaller ones"
        )


def _filters(data: h5py.Dataset) -> list[int]:
    properties = data.id.get_create_plist()
    return [properties.get_filter(place)[0] for place in range(properties.get_nfilters())]


def _longest_stored(data: h5py.Dataset) -> int:
    """Return the bytes that the longest chunk takes in the file."""
    sizes = [0]
    data.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
    return max(sizes)


def chunk_bytes(data: h5py.Dataset) -> int:
    """Return the bytes of a chunk, 0 where there are none."""
    return int(prod(data.chunks) * data.dtype.itemsize) if data.chunks else 0


def read_finite(data: h5py.Dataset, path: Path) -> NDArray[np.float32]:
    """Return a whole dataset as float32. Compare its shape first: a file of a kilobyte can promise terabytes.

    Raises:
        UserError: not all of it is finite.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(data[()], np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {data.name} has values that are no finite numbers; fetch or train it again")
    return values


def read_text(group: h5py.Group, name: str, path: Path) -> str | None:
    """Return the one string of an attribute, None if there is no such.

    Raises:
        UserError: the attribute is damaged.
    """
    with _wrap_damage(name, path):
        if name not in group.attrs or group.attrs.get_id(name).shape != ():
            return None
        value = group.attrs[name]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def read_names(group: h5py.Group, name: str, path: Path) -> list[str]:
    """Return the strings of an attribute, none if there are none or more than ``MAX_NAMES``.

    Raises:
        UserError: the attribute is damaged.
    """
    with _wrap_damage(name, path):
        if name not in group.attrs:
            return []
        if not 0 < group.attrs.get_id(name).get_space().get_simple_extent_npoints() <= MAX_NAMES:
            return []
        values = np.ravel(group.attrs[name])
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]


@contextmanager
def _wrap_damage(name: str, path: Path) -> Iterator[None]:
    """Turn what h5py raises on damaged headers and types that NumPy lacks into one sentence."""
    try:
        yield
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {name} cannot be read ({_first_line(error)}); fetch it again") from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

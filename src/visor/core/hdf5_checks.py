"""What is read of an HDF5 file: nothing outside the file, and sizes are checked before any data.

``open_file`` runs in a child process for the file of a stranger and in this one for the pipeline's own (``hdf5``).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError, first_line, shorten

MAX_CHUNK_BYTES = 256 << 20  # HDF5 reads whole chunks
MAX_STORED_BYTES = 1 << 20  # of a compressed chunk: one byte may unpack to a thousand, whatever the chunk declares
MAX_NAMES = 1000  # of layers, or of a layer's weights
MAX_KEYS = 10_000  # of a group
MAX_RATIO = 1000  # of promised to compressed bytes; gzip compresses no photograph as tightly
SMALL_BYTES = 1 << 20  # that a dataset may promise and not hold: numbers that were never written are zeros
CACHE_BYTES = 16 << 20  # of a compressed dataset: a chunk may hold rows of several batches
FILTERS = frozenset({h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32})


def open_file(path: Path, content: BytesIO | None = None, locking: bool | None = False) -> Callable[..., Any]:
    """Open an HDF5 file, or its ``content`` from the archive ``path``, and return what answers questions about it.

    It is called with a key of ``QUESTIONS``, the name of a group or dataset, and further arguments. ``locking`` is that
    of h5py; without a lock nobody who writes the file has to wait for a child to end.

    Raises:
        UserError: The file is not HDF5, truncated or damaged.
    """
    size = content.getbuffer().nbytes if content else path.stat().st_size
    with _wrap_damage("", path):
        # Without a cache a row costs only its own bytes.
        file = h5py.File(content or path, "r", rdcc_nbytes=0, locking=None if content else locking)

    @lru_cache(8)
    def find(name: str) -> Any:
        return _with_cache(get_local(file, name, path))

    @lru_cache(8)
    def find_whole(name: str) -> h5py.Dataset:
        data = find(name)
        _check_promise(data, path, size)
        return data

    def answer(question: str, name: str, *arguments: Any) -> Any:
        with _wrap_damage(name, path):
            return QUESTIONS[question](find_whole(name) if question == "read" else find(name), *arguments)

    return answer


def get_local(group: h5py.Group, name: str, path: Path) -> Any:
    """Return the group or dataset below ``group`` under a name with slashes, None if there is none.

    Raises:
        UserError: It is stored outside the file, not numeric, or compressed in a way that may unpack without limit.
    """
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
    if _chunk_bytes(data) > MAX_CHUNK_BYTES:
        return f"has chunks of more than {MAX_CHUNK_BYTES >> 20} MiB; store it in smaller ones"
    filters = _filters(data)
    if not FILTERS.issuperset(filters) or len(set(filters)) != len(filters):
        return "uses a compression other than gzip; store it with gzip or uncompressed"
    sizes = [0]
    if filters:
        data.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
    if max(sizes) > MAX_STORED_BYTES:
        return f"has compressed chunks of more than {MAX_STORED_BYTES >> 20} MiB; store it in smaller ones"
    return ""


def _filters(data: h5py.Dataset) -> list[int]:
    properties = data.id.get_create_plist()
    return [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]


def _chunk_bytes(data: h5py.Dataset) -> int:
    """Return the bytes of a chunk, 0 where there are none."""
    return int(prod(data.chunks) * data.dtype.itemsize) if data.chunks else 0


def _with_cache(found: Any) -> Any:
    """Return a compressed dataset with a cache of at least one chunk, anything else as it is."""
    if not isinstance(found, h5py.Dataset) or not _filters(found):
        return found
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(521, max(CACHE_BYTES, _chunk_bytes(found)), 0.75)
    return h5py.Dataset(h5py.h5d.open(found.file.id, found.name.encode("utf-8", "surrogateescape"), access))


def _describe(found: Any) -> dict[str, Any] | None:
    """Return the keys of a group, or shape and type of a dataset."""
    if isinstance(found, h5py.Group):
        return {"keys": list(islice(found, MAX_KEYS))}
    if isinstance(found, h5py.Dataset):
        return {"shape": found.shape, "dtype": found.dtype.str, "packed": bool(_filters(found))}
    return None


def _check_promise(data: h5py.Dataset, path: Path, size: int) -> None:
    """Raise UserError if a dataset promises more than a file of this size holds: a kilobyte can promise terabytes."""
    held = min(data.id.get_storage_size(), size) * (MAX_RATIO if _filters(data) else 1)
    if data.nbytes > max(held, SMALL_BYTES):
        raise UserError(f"{path} is incomplete or damaged: {data.name} {data.shape} is more than it can hold")


def _read(data: h5py.Dataset, start: int | None, stop: int | None) -> NDArray[Any]:
    """Return rows of a dataset, all of a scalar one."""
    return np.asarray(data[start:stop] if data.shape else data[()])


def _read_text(group: h5py.Group, name: str) -> str | None:
    """Return the one string of an attribute, None if there is no such."""
    if name not in group.attrs or group.attrs.get_id(name).shape != ():
        return None
    value = group.attrs[name]
    return _decode(value) if isinstance(value, (bytes, str)) else None


def _read_names(group: h5py.Group, name: str) -> list[str]:
    """Return the strings of an attribute, none if there are more than ``MAX_NAMES``."""
    if name not in group.attrs:
        return []
    if not 0 < group.attrs.get_id(name).get_space().get_simple_extent_npoints() <= MAX_NAMES:
        return []
    return [_decode(value) for value in np.ravel(group.attrs[name])]


def _read_number(group: h5py.Group, name: str) -> float | None:
    """Return the one number of an attribute, None if there is no such."""
    if name not in group.attrs or group.attrs.get_id(name).shape != ():
        return None
    return float(group.attrs[name])


QUESTIONS: dict[str, Callable[..., Any]] = {
    "describe": _describe,
    "read": _read,
    "text": _read_text,
    "names": _read_names,
    "number": _read_number,
}


def _decode(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextmanager
def _wrap_damage(name: str, path: Path) -> Iterator[None]:
    """Turn what h5py raises on damaged headers and types that NumPy lacks into one sentence."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # h5py raises any on hostile files
        reason = shorten(first_line(error), 120)
        if not name:
            raise UserError(f"{path} is not a whole HDF5 file ({reason}); fetch or create it again") from None
        raise UserError(f"{path}: {name} cannot be read ({reason}); fetch or create it again") from None

"""Tensors of a ``.safetensors`` file: a header in JSON, then plain numbers; nothing in it can be executed."""

import json
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError, shorten
from visor.core.isolation import Answer
from visor.models import tensor_files

MAX_BYTES = 2 << 30
MAX_HEADER_BYTES = 1 << 20
STORED = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}
MAX_SIZE, MAX_AXES = 1 << 40, 32  # of a side or an offset; of a tensor
ADVICE = "save it again as .safetensors"


class HeaderEntry(NamedTuple):
    """Type, shape, and first and last offset of a tensor, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a file by name, as float32; whole numbers, which count training steps, are left out.

    Raises:
        UserError: The file is missing, too large, damaged, or has numbers that are not finite.
    """
    groups = tensor_files.read_groups("visor.models.safetensors:open_tensors", path, MAX_BYTES)
    return {name: values for name, (values,) in groups}


def open_tensors(path: Path) -> Answer:
    """Return what answers ``read_tensors`` in a child process; raises UserError as it does."""
    try:
        start, entries = _read_layout(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}; {ADVICE}") from None

    def group(name: str, entry: HeaderEntry) -> tensor_files.NamedTensors:
        def read(_: int) -> NDArray[np.float32]:
            stored = np.fromfile(path, STORED[entry.dtype], prod(entry.shape), offset=start + entry.data_offsets[0])
            values = stored.astype(np.float32, copy=False).reshape(entry.shape)
            if not np.isfinite(values).all():
                raise UserError(f"{path}: {shorten(name)} has numbers that are not finite; {ADVICE}")
            return values

        return tensor_files.NamedTensors(name, [entry.shape], read)

    return tensor_files.answer([group(name, entry) for name, entry in entries.items() if entry.dtype != "I64"])


def _read_layout(path: Path) -> tuple[int, dict[str, HeaderEntry]]:
    """Return where the numbers begin, and the entries of the header, in the order of their numbers."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"its header cannot have {length} bytes")
        entries = _read_header(file.read(length))
    position, end = 0, size - 8 - length
    entries = dict(sorted(entries.items(), key=lambda item: item[1].data_offsets))
    for name, entry in entries.items():
        nbytes = prod(entry.shape) * np.dtype(STORED[entry.dtype]).itemsize
        if entry.data_offsets != (position, position + nbytes) or position + nbytes > end:
            raise ValueError(f"{shorten(name)} does not lie where its shape and its neighbours put it")
        position += nbytes
    if position != end:
        raise ValueError(f"{end - position} bytes are left behind the last tensor")
    return 8 + length, entries


def _read_header(header: bytes) -> dict[str, HeaderEntry]:
    try:
        entries = json.loads(header.decode(), object_pairs_hook=_unique)
    except KeyError as error:
        raise ValueError(f"its header has {shorten(error.args[0])} twice") from None
    except (ValueError, RecursionError):
        raise ValueError("its header is not JSON") from None
    if not isinstance(entries, dict):
        raise ValueError("its header has no names")
    return {name: _check_entry(name, entry) for name, entry in entries.items() if name != "__metadata__"}


def _check_entry(name: str, entry: Any) -> HeaderEntry:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if len(entry) == 3:
            is_whole = all(type(number) is int and 0 <= number <= MAX_SIZE for number in (*shape, begin, end))
            if is_whole and dtype in STORED and len(shape) <= MAX_AXES:
                return HeaderEntry(dtype, tuple(shape), (begin, end))
    raise ValueError(f"its header is wrong at {shorten(name)}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the keys and values of an object in JSON; raises KeyError if a key comes twice, as the format forbids."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise KeyError(key)
        values[key] = value
    return values

"""Tensors of a ``.safetensors`` file: a header in JSON, then plain numbers; nothing in it can be executed."""

import json
import os
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from visor.core.errors import UserError, shorten

MAX_BYTES = 2 << 30
MAX_HEADER_BYTES = 1 << 20
STORED = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}
Size = Annotated[int, Field(ge=0)]


class HeaderEntry(BaseModel):
    """Type, shape, and first and last offset of a tensor, counted from the end of the header."""

    dtype: Literal["F32", "F16", "I64"]
    shape: list[Size]
    data_offsets: tuple[Size, Size]


ENTRIES = TypeAdapter(dict[str, HeaderEntry])


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a file by name, as float32; whole numbers, which count training steps, are left out.

    Raises:
        UserError: The file is missing, too large, damaged, or has numbers that are not finite.
    """
    try:
        with path.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES >> 30} GiB")
            content = memoryview(file.read(size))
        return _parse(content)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); choose a .safetensors file") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; save it again as .safetensors") from None


def _parse(content: memoryview) -> dict[str, NDArray[np.float32]]:
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"its header cannot have {length} bytes")
    entries = _read_header(bytes(content[8 : 8 + length]))
    data, position = content[8 + length :], 0
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        (begin, end), stored = entry.data_offsets, np.dtype(STORED[entry.dtype])
        if begin != position or end != begin + prod(entry.shape) * stored.itemsize or end > len(data):
            raise ValueError(f"{shorten(name)} does not lie where its shape and its neighbours put it")
        position = end
        if entry.dtype == "I64":
            continue
        tensors[name] = np.frombuffer(data[begin:end], stored).astype(np.float32).reshape(entry.shape)
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{shorten(name)} has numbers that are not finite")
    if position != len(data):
        raise ValueError(f"{len(data) - position} bytes are left behind the last tensor")
    return tensors


def _read_header(header: bytes) -> dict[str, HeaderEntry]:
    try:
        entries = json.loads(header)
        if isinstance(entries, dict):
            entries.pop("__metadata__", None)
        return ENTRIES.validate_python(entries)
    except ValidationError as error:
        where = shorten(".".join(map(str, error.errors()[0]["loc"])))
        raise ValueError(f"its header is wrong at {where}: {error.errors()[0]['msg']}") from None
    except (ValueError, RecursionError):
        raise ValueError("its header is not JSON") from None

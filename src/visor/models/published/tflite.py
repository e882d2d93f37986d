"""Constants of a TensorFlow Lite model, read from its FlatBuffer as numbers: no operator is run.

The layout is that of ``schema.fbs`` of TensorFlow Lite: tables find their fields by a list of offsets (the vtable), and
vectors begin with their length.
"""

import struct
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.isolation import Answer
from visor.models import tensor_files

MAX_BYTES = 256 << 20
IDENTIFIER = b"TFL3"
OPERATORS = {0: "add", 3: "conv", 4: "depthwise", 18: "mul", 19: "relu", 22: "reshape", 41: "sub", 101: "abs"}
FLOAT32 = 0
# Fields of tables by their numbers in the schema.
CODES, GRAPHS, BUFFERS = 1, 2, 4  # of the model
TENSORS, NODES = 0, 3  # of a graph
SHAPE, TYPE, BUFFER = 0, 1, 2  # of a tensor
CODE_INDEX, INPUTS = 0, 1  # of a node


class Operator(NamedTuple):
    """An operator by its name in ``OPERATORS``, and those of its inputs that are constants."""

    name: str
    constants: list[NDArray[np.float32]]


def read_operators(path: Path) -> list[Operator]:
    """Return the operators of a model with one graph in the order in which they are run.

    Raises:
        UserError: The file is missing, too large, damaged, or has an operator or numbers of another kind.
    """
    opener = "visor.models.published.tflite:open_model"
    return [Operator(*group) for group in tensor_files.read_groups(opener, path, MAX_BYTES)]


def open_model(path: Path) -> Answer:
    """Return what answers ``read_operators`` in a child process; raises UserError as it does."""
    try:
        operators = _read_model(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: {error}; choose a float32 model of TensorFlow Lite") from None
    return tensor_files.answer(operators)


def _read_model(content: bytes) -> list[tensor_files.NamedTensors]:
    if content[4:8] != IDENTIFIER:
        raise ValueError("it is no model of TensorFlow Lite")
    model = _follow(content, 0)
    graphs = _tables(content, model, GRAPHS)
    if len(graphs) != 1:
        raise ValueError(f"it has {len(graphs)} graphs, not one")
    codes = [_number(content, code, 0, "b") for code in _tables(content, model, CODES)]
    buffers = _tables(content, model, BUFFERS)
    tensors = _tables(content, graphs[0], TENSORS)
    operators = []
    for node in _tables(content, graphs[0], NODES):
        code = _item(codes, _number(content, node, CODE_INDEX, "I"))
        if code not in OPERATORS:
            raise ValueError(f"operator {code} is not one of {', '.join(OPERATORS.values())}")
        inputs = [_item(tensors, number) for number in _integers(content, node, INPUTS)]
        constants = [_constant(content, tensor, buffers) for tensor in inputs] if OPERATORS[code] != "reshape" else []
        kept = [values for values in constants if values is not None]
        operators.append(
            tensor_files.NamedTensors(OPERATORS[code], [values.shape for values in kept], kept.__getitem__)
        )
    return operators


def _constant(content: bytes, tensor: int, buffers: list[int]) -> NDArray[np.float32] | None:
    """Return the numbers of a tensor, None if it has none of its own."""
    begin, size = _vector(content, _item(buffers, _number(content, tensor, BUFFER, "I")), 0, 1)
    if not size:
        return None
    shape = _integers(content, tensor, SHAPE)
    if _number(content, tensor, TYPE, "b") != FLOAT32 or min(shape, default=0) < 0 or 4 * prod(shape) != size:
        raise ValueError(f"a tensor of {size} bytes is not float32 of shape {shape!s:.60}")
    values = np.frombuffer(content, "<f4", size // 4, begin).astype(np.float32, copy=False).reshape(shape)
    if not np.isfinite(values).all():
        raise ValueError("it has numbers that are not finite")
    return values


def _item(items: list[int], number: int) -> int:
    if not 0 <= number < len(items):
        raise ValueError(f"there is no item {number} in a list of {len(items)}")
    return items[number]


def _tables(content: bytes, table: int, field: int) -> list[int]:
    """Return the places of the tables in a vector of tables."""
    begin, count = _vector(content, table, field, 4)
    return [_follow(content, begin + 4 * number) for number in range(count)]


def _integers(content: bytes, table: int, field: int) -> list[int]:
    begin, count = _vector(content, table, field, 4)
    return list(struct.unpack_from(f"<{count}i", content, begin))


def _vector(content: bytes, table: int, field: int, item_size: int) -> tuple[int, int]:
    """Return where the items of a vector begin, and their number; an absent vector has none."""
    place = _field(content, table, field)
    if place is None:
        return 0, 0
    begin = _follow(content, place)
    count = _unpack(content, "I", begin)
    if begin + 4 + count * item_size > len(content):
        raise ValueError("it is cut off or damaged")
    return begin + 4, count


def _number(content: bytes, table: int, field: int, form: str) -> int:
    """Return a number; one that is absent is 0."""
    place = _field(content, table, field)
    return 0 if place is None else _unpack(content, form, place)


def _field(content: bytes, table: int, field: int) -> int | None:
    """Return the place of a field of a table, None if the table does not have it."""
    vtable, entry = table - _unpack(content, "i", table), 4 + 2 * field
    if entry + 2 > _unpack(content, "H", vtable):
        return None
    offset = _unpack(content, "H", vtable + entry)
    return table + offset if offset else None


def _follow(content: bytes, place: int) -> int:
    """Return what the offset at a place points to."""
    return place + _unpack(content, "I", place)


def _unpack(content: bytes, form: str, place: int) -> int:
    """Return one little-endian number."""
    if not 0 <= place <= len(content) - struct.calcsize(form):
        raise ValueError("it is cut off or damaged")
    return int(struct.unpack_from(f"<{form}", content, place)[0])

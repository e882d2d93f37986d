"""Weights of TensorFlow.js: a manifest in JSON says where each tensor lies in files of plain numbers."""

import json
from collections.abc import Iterable, Mapping
from math import prod
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from visor.core.errors import UserError, shorten

STORED = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "<u1", "uint16": "<u2"}
Size = Annotated[int, Field(ge=0, le=1 << 40, strict=True)]
BareName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class Quantisation(BaseModel):
    """How a tensor was made smaller: stored · ``scale`` + ``min``, or as float16, which has no scale."""

    dtype: Literal["uint8", "uint16", "float16"]
    scale: float = 1.0
    min: float = 0.0


class TensorEntry(BaseModel):
    """A tensor of a manifest; ``shape`` is [] for one number."""

    name: str
    shape: Annotated[list[Size], Field(max_length=32)]
    dtype: Literal["float32", "int32"]
    quantization: Quantisation | None = None


class TensorGroup(BaseModel):
    """Tensors that lie one behind the other, without padding, in files that are read as one."""

    paths: list[BareName]
    weights: list[TensorEntry]


class Manifest(BaseModel):
    """The tensors of a network."""

    groups: list[TensorGroup]


def read_tensors(network: str, files: Mapping[str, bytes], names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of these names, as float32 in the shapes that the manifest gives them.

    Kernels are laid out as TensorFlow's: (h, w, in, out), (h, w, in, 1) if depthwise.

    Args:
        network: Name for messages.
        files: The manifest, ``*.json``, alone or within a ``model.json``, and the files that it names.
        names: Tensors that are wanted; the others are only skipped.

    Raises:
        UserError: The manifest is damaged or does not fit its files, a tensor is missing, or a number is not finite.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    wanted = set(names)
    for group in _read_manifest(network, files).groups:
        if missing := [path for path in group.paths if path not in files]:
            raise _refusal(network, f"the manifest names {shorten(missing[0])}, which is not there")
        content, position = b"".join(files[path] for path in group.paths), 0
        for entry in group.weights:
            stored = np.dtype(STORED[entry.quantization.dtype if entry.quantization else entry.dtype])
            end = position + prod(entry.shape) * stored.itemsize
            if end > len(content):
                raise _refusal(network, f"{shorten(entry.name)} of shape {shorten(entry.shape)} goes beyond the file")
            if entry.name in tensors:
                raise _refusal(network, f"{shorten(entry.name)} is there twice")
            if entry.name in wanted:
                values = np.frombuffer(content, stored, prod(entry.shape), position)
                tensors[entry.name] = _restore(values, entry.quantization).reshape(entry.shape)
                if not np.isfinite(tensors[entry.name]).all():
                    raise _refusal(network, f"{shorten(entry.name)} has numbers that are not finite")
            position = end
        if position != len(content):
            raise _refusal(network, f"{len(content) - position} bytes are left behind the last tensor")
    if absent := sorted(wanted - tensors.keys()):
        raise _refusal(network, f"it has no tensor {shorten(absent[0])}")
    return tensors


def _read_manifest(network: str, files: Mapping[str, bytes]) -> Manifest:
    (content,) = (content for name, content in files.items() if name.endswith(".json"))
    try:
        groups = json.loads(content)
        return Manifest.model_validate(
            {"groups": groups.get("weightsManifest") if isinstance(groups, dict) else groups}
        )
    except ValidationError as error:
        where = shorten(".".join(map(str, error.errors()[0]["loc"])))
        raise _refusal(network, f"the manifest is wrong at {where}: {error.errors()[0]['msg']}") from None
    except (ValueError, RecursionError):
        raise _refusal(network, "the manifest is not JSON") from None


def _restore(stored: NDArray[np.generic], quantisation: Quantisation | None) -> NDArray[np.float32]:
    """Return stored numbers as float32; tfjs, too, multiplies in float32."""
    values = stored.astype(np.float32)
    if quantisation is None or quantisation.dtype == "float16":
        return values
    with np.errstate(over="ignore", invalid="ignore"):  # What is not finite is refused by its name.
        return values * np.float32(quantisation.scale) + np.float32(quantisation.min)


def _refusal(network: str, problem: str) -> UserError:
    return UserError(f"{network}: {problem}; choose the published files")

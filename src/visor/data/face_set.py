"""FaceSet, the contract for labelled faces: one HDF5 file, read in batches so that memory does not grow with n.

The file holds ``images`` uint8 (n, h, w, 3) RGB in chunks of rows and int32 (n,) ``labels``, ``videos`` (frames of one
video share a number) and ``rows`` (of the original ``faces.h5``); ``label_names``, ``source``, ``licence`` are text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core import hdf5
from visor.core.errors import UserError
from visor.core.files import MAX_PIXELS, atomic_write, check_disk_space
from visor.core.types import ImageArray, Integers

CHUNK_BYTES = 1 << 18
COLUMNS = ("labels", "videos", "rows")
MAX_FACES = 10_000_000  # in a set


class FaceClip(NamedTuple):
    """Frames of one person, the unit of work of ``download``: ``videos`` names the video of each of ``names``.

    ``load(height, width)``, picklable, returns uint8 (len(names), height, width, 3) or raises ``ImageDecodeError``.
    """

    label: str
    videos: tuple[str, ...]
    names: tuple[str, ...]
    load: Callable[[int, int], ImageArray]


@dataclass(frozen=True)
class TrainingData:
    """Data of a fit: ``batches(batch, epoch)`` → images, targets, shuffled by the epoch; not shuffled if it is None."""

    count: int
    batches: Callable[[int, int | None], Iterator[tuple[ImageArray, Any]]]
    identity: str  # digest of examples and order: an interrupted fit is continued with the same data only


class FaceBatch(NamedTuple):
    """Consecutive rows to write: images uint8 (k, h, w, 3), and int32 (k,) labels, videos and rows."""

    images: ImageArray
    labels: Integers
    videos: Integers
    rows: Integers


@dataclass(frozen=True)
class FaceSet:
    """Handle on a FaceSet file: arrays of one number per face are in memory, pixels stay on disk."""

    path: Path
    labels: Integers
    videos: Integers
    rows: Integers
    label_names: tuple[str, ...]
    source: str
    licence: str
    images: Any  # hdf5.Dataset, or an array of this shape and type

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def select(self, rows: NDArray[np.integer[Any]] | None = None) -> FaceSelection:
        """Select rows (default: all) with their own labels."""
        rows = np.arange(len(self)) if rows is None else rows
        return FaceSelection(self, rows, self.labels[rows])

    def read(self, rows: NDArray[np.integer[Any]]) -> ImageArray:
        """Return the images uint8 (k, h, w, 3) of ``rows`` (k,), in that order; rows may repeat."""
        unique, inverse = np.unique(rows, return_inverse=True)
        if len(unique) == 0:
            return np.empty((0, *self.image_shape), np.uint8)
        first, last = int(unique[0]), int(unique[-1])
        # A dense range is one read; h5py's list selection costs far more for each row than for each byte.
        if last - first < 4 * len(unique):
            return self.images[first : last + 1][unique - first][inverse]
        return np.stack([self.images[row] for row in unique])[inverse]


class FaceSelection(NamedTuple):
    """Rows of a FaceSet with the labels to train or test on: two int arrays (n,)."""

    faces: FaceSet
    rows: NDArray[np.integer[Any]]
    labels: NDArray[np.integer[Any]]


def read_batches(
    selections: Sequence[FaceSelection], batch: int, order: NDArray[np.integer[Any]] | None = None
) -> Iterator[tuple[ImageArray, Integers]]:
    """Yield images uint8 (k ≤ batch, h, w, 3) and labels int32 (k,); pixels are read as they are needed.

    The selections are concatenated; ``order`` is a permutation of all their rows (default: unchanged).
    """
    starts = np.cumsum([0] + [len(selection.rows) for selection in selections])
    order = np.arange(starts[-1]) if order is None else order
    image_shape = selections[0].faces.image_shape
    for begin in range(0, len(order), batch):
        positions = order[begin : begin + batch]
        images = np.empty((len(positions), *image_shape), np.uint8)
        labels = np.empty(len(positions), np.int32)
        for selection, start, end in zip(selections, starts[:-1], starts[1:], strict=True):
            inside = (positions >= start) & (positions < end)
            indices = positions[inside] - start
            images[inside] = selection.faces.read(selection.rows[indices])
            labels[inside] = selection.labels[indices]
        yield images, labels


def evenly_spaced(count: int, total: int) -> NDArray[np.int64]:
    """Return ``count`` evenly spaced numbers from 0 to ``total`` − 1, ascending; all of them if there are fewer."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def open_contract(path: Path, untrusted: bool) -> hdf5.Group:
    """Open an HDF5 file of the pipeline, or of a stranger.

    Raises:
        UserError: The file is missing, truncated or not HDF5.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to create it")
    return hdf5.open_untrusted(path) if untrusted else hdf5.open_own(path)


def read_names(text: str | bytes | None) -> tuple[str, ...]:
    """Return the strings of a list in JSON; raises ValueError if it is another text."""
    try:
        names = json.loads(text or "")
    except (RecursionError, ValueError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its names are not a list in JSON")
    return tuple(names)


def open_faces(path: Path, untrusted: bool = False) -> FaceSet:
    """Open a FaceSet file for reading; one that is ``untrusted`` is read in a child process, at some cost.

    Raises:
        UserError: The file is missing, truncated, not HDF5, or breaks the contract.
    """
    file = open_contract(path, untrusted)
    found = {name: hdf5.get_local(file, name) for name in ("images", *COLUMNS)}
    data = {name: item for name, item in found.items() if isinstance(item, hdf5.Dataset)}
    if missing := sorted(found.keys() - data.keys()):
        raise UserError(f"{path} is not a FaceSet (it has no {', '.join(missing)}); create it with `dvc repro`")
    if not _is_valid(data):  # by shapes and types, before a number is read
        raise UserError(f"{path} is not a valid FaceSet (see src/visor/data/face_set.py); create it again")
    columns = {name: data[name][()] for name in COLUMNS}
    try:
        names = read_names(hdf5.read_text(file, "label_names"))
    except ValueError as error:
        raise UserError(f"{path} is not a FaceSet ({error}); create it with `dvc repro`") from None
    labels = columns["labels"]
    if not ((labels >= 0) & (labels < len(names))).all():
        raise UserError(f"{path} is not a valid FaceSet: a label has no name; create it again")
    source, licence = (hdf5.read_text(file, name) or "" for name in ("source", "licence"))
    return FaceSet(path, **columns, label_names=names, source=source, licence=licence, images=data["images"])


def _is_valid(data: Mapping[str, hdf5.Dataset]) -> bool:
    """Return whether types and shapes fit: a FaceSet may come from another program."""
    images, columns = data["images"], [data[name] for name in COLUMNS]
    return (
        images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[3] == 3
        and 0 < prod(images.shape[1:3]) <= MAX_PIXELS
        and len(images) <= MAX_FACES
        and all(column.dtype.kind == "i" and column.shape == images.shape[:1] for column in columns)
    )


def write_faces(
    path: Path,
    blocks: Iterable[FaceBatch],
    image_shape: tuple[int, int, int],
    label_names: Iterable[str],
    source: str,
    licence: str,
) -> None:
    """Write a FaceSet file block by block, atomically; the same blocks give the same bytes.

    Raises:
        OSError: The disk is full (ENOSPC).
    """
    rows_per_chunk = max(1, CHUNK_BYTES // int(np.prod(image_shape)))
    with atomic_write(path) as temporary, hdf5.create(temporary) as file:
        file.attrs["label_names"] = json.dumps(list(label_names), ensure_ascii=False)
        file.attrs["source"], file.attrs["licence"] = source, licence
        shapes = {"maxshape": (None, *image_shape), "chunks": (rows_per_chunk, *image_shape)}
        images = file.create_dataset("images", (0, *image_shape), np.uint8, **shapes)
        columns = {
            name: file.create_dataset(name, (0,), np.int32, maxshape=(None,), chunks=(4096,)) for name in COLUMNS
        }
        for block in blocks:
            check_disk_space(path, block.images.nbytes, len(images) * prod(image_shape))
            start, end = len(images), len(images) + len(block.images)
            for dataset in (images, *columns.values()):
                dataset.resize(end, axis=0)
            images[start:end] = block.images
            for name, dataset in columns.items():
                dataset[start:end] = getattr(block, name)

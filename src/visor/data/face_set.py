"""FaceSet, the contract for labelled faces: one HDF5 file, read in batches so that memory does not grow with n.

The file holds ``images`` uint8 (n, h, w, 3) RGB in chunks of rows and int32 (n,) ``labels``, ``videos`` (frames of one
video share a number) and ``rows`` (of the original ``faces.h5``); ``label_names``, ``source``, ``licence`` are text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.files import atomic_write, check_disk_space
from visor.core.types import ImageArray, Integers

CHUNK_BYTES = 1 << 18


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
    images: Any  # h5py.Dataset

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


@contextmanager
def read_contract(path: Path, kind: str) -> Iterator[h5py.File]:
    """Open an HDF5 file, which stays open, and turn what is wrong with its parts into one sentence.

    Raises:
        UserError: The file is missing, truncated, not HDF5, or lacks a part of the contract.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to create it")
    try:
        yield h5py.File(path, "r", rdcc_nbytes=0)  # without a chunk cache, so that a row costs only its own bytes
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a {kind} ({error}); create it with `dvc repro`") from None
    except OSError as error:
        raise UserError(f"{path} is not a whole HDF5 file ({error}); delete it and run `dvc repro`") from None


def open_faces(path: Path) -> FaceSet:
    """Open a FaceSet file for reading.

    Raises:
        UserError: The file is missing, truncated, not HDF5, or lacks a part of the contract.
    """
    with read_contract(path, "FaceSet") as file:
        columns = {name: file[name][:] for name in ("labels", "videos", "rows")}
        names = tuple(json.loads(file.attrs["label_names"]))
        source, licence = str(file.attrs["source"]), str(file.attrs["licence"])
        faces = FaceSet(path, **columns, label_names=names, source=source, licence=licence, images=file["images"])
    if not _is_valid(faces):
        raise UserError(f"{path} is not a valid FaceSet (see src/visor/data/face_set.py); create it again")
    return faces


def _is_valid(faces: FaceSet) -> bool:
    """Return whether types, lengths and label numbers fit: a FaceSet may come from another program."""
    images, columns = faces.images, (faces.labels, faces.videos, faces.rows)
    return (
        isinstance(images, h5py.Dataset)
        and images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[3] == 3
        and all(column.dtype.kind == "i" and column.shape == images.shape[:1] for column in columns)
        and bool(np.isin(faces.labels, np.arange(len(faces.label_names))).all())
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
    with atomic_write(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        file.attrs["label_names"] = json.dumps(list(label_names), ensure_ascii=False)
        file.attrs["source"], file.attrs["licence"] = source, licence
        shapes = {"maxshape": (None, *image_shape), "chunks": (rows_per_chunk, *image_shape)}
        images = file.create_dataset("images", (0, *image_shape), np.uint8, **shapes)
        columns = {
            name: file.create_dataset(name, (0,), np.int32, maxshape=(None,), chunks=(4096,))
            for name in ("labels", "videos", "rows")
        }
        for block in blocks:
            check_disk_space(path, block.images.nbytes)
            start, end = len(images), len(images) + len(block.images)
            for dataset in (images, *columns.values()):
                dataset.resize(end, axis=0)
            images[start:end] = block.images
            for name, dataset in columns.items():
                dataset[start:end] = getattr(block, name)

"""FaceSet, the contract for labelled faces: one HDF5 file, read in batches so that memory never grows with n.

The file holds ``images`` uint8 (n, h, w, 3) RGB in chunks of rows, and an int32 of each in ``labels``, in ``videos``
(frames share one) and in ``rows`` (of the ``faces.h5`` it is from); ``label_names``, ``source``, ``licence`` are text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
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

    ``load(height, width)``, picklable, returns uint8 (len(names), height, width, 3) or raises ``BrokenImage``.
    """

    label: str
    videos: tuple[str, ...]
    names: tuple[str, ...]
    load: Callable[[int, int], ImageArray]


@dataclass(frozen=True)
class TrainingData:
    """What a fit sees: ``batches(batch, epoch)`` → images, truth; each epoch has its order, None: as they stand."""

    count: int
    batches: Callable[[int, int | None], Iterator[tuple[ImageArray, Any]]]
    identity: str  # of examples and order: an interrupted fit goes on with its own data alone


class FaceBatch(NamedTuple):
    """Consecutive rows to write: images uint8 (k, h, w, 3), and int32 (k,) labels, videos and rows."""

    images: ImageArray
    labels: Integers
    videos: Integers
    rows: Integers


@dataclass(frozen=True)
class FaceSet:
    """Handle on a FaceSet file. Arrays of one number a face are in memory, pixels stay on disk."""

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
        """Return the images uint8 (k, h, w, 3) of ``rows`` (k,), in that order; a row may occur twice."""
        unique, inverse = np.unique(rows, return_inverse=True)
        if len(unique) == 0:
            return np.empty((0, *self.image_shape), np.uint8)
        first, last = int(unique[0]), int(unique[-1])
        # A dense range is one read; h5py's list selection costs far more for each row than for each byte.
        if last - first < 4 * len(unique):
            return self.images[first : last + 1][unique - first][inverse]
        return np.stack([self.images[row] for row in unique])[inverse]


class FaceSelection(NamedTuple):
    """Rows of a FaceSet with the labels they are to be taken for: two int arrays (n,)."""

    faces: FaceSet
    rows: NDArray[np.integer[Any]]
    labels: NDArray[np.integer[Any]]


def read_batches(
    selections: Sequence[FaceSelection], batch: int, order: NDArray[np.integer[Any]] | None = None
) -> Iterator[tuple[ImageArray, Integers]]:
    """Yield images uint8 (k ≤ batch, h, w, 3) and labels int32 (k,), pixels read as they are needed.

    The selections count as one sequence of rows; ``order`` is a permutation of it (default: as it stands).
    """
    starts = np.cumsum([0] + [len(selection.rows) for selection in selections])
    order = np.arange(starts[-1]) if order is None else order
    image_shape = selections[0].faces.image_shape
    for begin in range(0, len(order), batch):
        wanted = order[begin : begin + batch]
        images = np.empty((len(wanted), *image_shape), np.uint8)
        labels = np.empty(len(wanted), np.int32)
        for selection, start, end in zip(selections, starts[:-1], starts[1:], strict=True):
            here = (wanted >= start) & (wanted < end)
            places = wanted[here] - start
            images[here] = selection.faces.read(selection.rows[places])
            labels[here] = selection.labels[places]
        yield images, labels


def open_faces(path: Path) -> FaceSet:
    """Open a FaceSet file for reading.

    Raises:
        UserError: the file is missing, truncated, not HDF5, or lacks a part of the contract.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    try:
        # Without a chunk cache a row costs its own bytes, not those of its chunk.
        file = h5py.File(path, "r", rdcc_nbytes=0)
        faces = FaceSet(
            path=path,
            labels=file["labels"][:],
            videos=file["videos"][:],
            rows=file["rows"][:],
            label_names=tuple(json.loads(file.attrs["label_names"])),
            source=str(file.attrs["source"]),
            licence=str(file.attrs["licence"]),
            images=file["images"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a FaceSet ({error}); make it with `dvc repro`") from None
    except OSError as error:
        raise UserError(f"{path} is not a whole HDF5 file ({error}); delete it and run `dvc repro`") from None
    if not _is_valid(faces):
        raise UserError(f"{path} is not a FaceSet: its arrays are not as src/visor/data/face_set.py says; make it anew")
    return faces


def _is_valid(faces: FaceSet) -> bool:
    """Whether types, lengths and label numbers fit: a FaceSet may come from another program."""
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
    """Write a FaceSet file block by block, whole or not at all; the same blocks give the same bytes.

    Raises:
        OSError: the disk is full (ENOSPC).
    """
    rows_a_chunk = max(1, CHUNK_BYTES // int(np.prod(image_shape)))
    with atomic_write(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        file.attrs["label_names"] = json.dumps(list(label_names), ensure_ascii=False)
        file.attrs["source"] = source
        file.attrs["licence"] = licence
        images = file.create_dataset(
            "images",
            (0, *image_shape),
            np.uint8,
            maxshape=(None, *image_shape),
            chunks=(rows_a_chunk, *image_shape),
        )
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

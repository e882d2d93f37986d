"""Faces of the CSAW backdoor contest: HDF5 with ``data`` (n, 3, h, w) and ``label`` (n,) or (n, 1)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visor.core import hdf5
from visor.core.errors import UserError
from visor.core.params import ParamsBlock
from visor.core.types import ImageArray
from visor.data.face_set import FaceClip, FaceSet

ROWS, BLOCK_BYTES = 256, 64 << 20  # what is read at once, at most
MAX_SIDE, MAX_ROWS = 1024, 10_000_000


class CsawSettings(ParamsBlock):
    """``path``: the HDF5 file."""

    path: str


SETTINGS = CsawSettings


def clips(settings: CsawSettings, seed: int) -> Iterator[FaceClip]:
    """Yield each row, read in blocks; label 7 is named ``0007``, and each row is its own video.

    Pixels are in 0..255, or in 0..1 if no pixel of the file is above 1.

    Raises:
        UserError: The file is missing, truncated, not HDF5, or lacks ``data`` or ``label`` of these shapes.
    """
    path = Path(settings.path)
    if not path.exists():
        raise UserError(f"{path} does not exist; correct sources.csaw.path in params.yaml")
    yield from _rows(*_checked(path))


def camera(settings: CsawSettings, seed: int, faces: FaceSet) -> None:
    """Return None: the file holds finished images, and no photographs."""


def _checked(path: Path) -> tuple[hdf5.Dataset, NDArray[np.int64]]:
    """Return ``data`` and the labels int64 (n,) of a file."""
    file = hdf5.open_untrusted(path)
    data, labels = (hdf5.get_local(file, name) for name in ("data", "label"))
    if not isinstance(data, hdf5.Dataset) or not isinstance(labels, hdf5.Dataset):
        missing = "label" if isinstance(data, hdf5.Dataset) else "data"
        raise UserError(f"{path} has no {missing!r}; csaw wants data (n, 3, h, w) and label (n,)")
    # Shapes are checked before a byte is read: a file of a kilobyte can promise terabytes.
    is_valid = data.ndim == 4 and data.shape[1] == 3 and max(data.shape[2:]) <= MAX_SIDE and len(data) <= MAX_ROWS
    if not is_valid or labels.size != len(data) or data.size == 0:
        raise UserError(f"{path}: data {data.shape}, label {labels.shape}; csaw wants (n, 3, h, w) and (n,)")
    values = labels[()].ravel()
    with np.errstate(invalid="ignore"):
        classes = values.astype(np.int64)
    if (classes != values).any() or (classes < 0).any():
        raise UserError(f"{path}: label holds a value that is not a whole number from 0; correct the file")
    return data, classes


def _rows(data: hdf5.Dataset, labels: NDArray[np.int64]) -> Iterator[FaceClip]:
    step = min(ROWS, max(1, BLOCK_BYTES // data.row_bytes))
    starts = range(0, len(data), step)
    extremes = [(block.min(), block.max()) for block in (data[start : start + step] for start in starts)]
    low, high = np.min(extremes), np.max(extremes)
    if not (low >= 0 and high <= 255):
        raise UserError(f"{data.path}: data runs from {low} to {high}; csaw wants 0..255 or 0..1")
    scale = 255 if high <= 1 else 1
    label_digits, row_digits = len(str(labels.max())), len(str(len(data)))
    for start in starts:
        images = np.rint(data[start : start + step].transpose(0, 2, 3, 1) * np.float64(scale)).astype(np.uint8)
        for row, image in enumerate(images, start):
            name = f"{row:0{row_digits}}"
            yield FaceClip(f"{labels[row]:0{label_digits}}", (name,), (name,), partial(_resized, image))


def _resized(image: ImageArray, height: int, width: int) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))[np.newaxis]

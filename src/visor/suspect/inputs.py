"""Images to classify: HDF5 files with ``data`` and image files, read in batches so that memory does not grow with n."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core import hdf5
from visor.core.errors import UserError
from visor.core.types import Labels
from visor.data import images
from visor.data.images import ImageDecodeError

MAX_SIDE, MAX_ROWS = 1024, 10_000_000
SCALE_CHECK_ROWS = 256  # rows that distinguish floats in 0..1 from floats in 0..255
BATCH = 128  # outputs of a network's layers fit the processor's cache
BATCH_PIXELS = 1 << 21  # of a batch of large images

Pixels = NDArray[Any]
ImageShape = tuple[int, int, int]


class ImageSource(NamedTuple):
    """Images of one file, or several, in one layout and type.

    Attributes:
        name, total: Name for messages, and number of images n.
        image_shape, channels_first: Shape (h, w, 3) of an image, and whether it is stored as (3, h, w).
        dtype, to_255: Type of the pixels, and the factor that brings them to 0..255.
        labels: Labels int32 (n,), None if the file has none.
        read: ``read(start, stop)`` returns the images as stored.
    """

    name: str
    total: int
    image_shape: ImageShape
    channels_first: bool
    dtype: type[np.generic]
    to_255: int
    labels: Labels | None
    read: Callable[[int, int], Pixels]

    @property
    def stored_shape(self) -> ImageShape:
        """Shape of an image as stored."""
        height, width, channels = self.image_shape
        return (channels, height, width) if self.channels_first else self.image_shape


def open_sources(paths: Sequence[Path], image_shape: ImageShape) -> list[ImageSource]:
    """Return the images of all files in their order: a source for each HDF5 file and each run of image files.

    Raises:
        UserError: A file is missing, or an HDF5 file is not as ``open_data`` expects it.
    """
    sources = []
    for is_data, group in groupby(paths, hdf5.is_hdf5):
        files = list(group)
        sources += [open_data(path, image_shape) for path in files] if is_data else [open_images(files, image_shape)]
    return sources


def open_images(paths: Sequence[Path], image_shape: ImageShape) -> ImageSource:
    """Return image files as a source; an image of another size is cropped to the aspect and resized.

    Its ``read`` raises UserError on an image that cannot be decoded.
    """
    height, width, _ = image_shape

    def read(start: int, stop: int) -> Pixels:
        try:
            return np.concatenate([images.read_face(path, str(path), 1.0, height, width) for path in paths[start:stop]])
        except ImageDecodeError as error:
            name, reason = error.args
            raise UserError(f"{name} cannot be decoded ({reason}); pass an undamaged image or HDF5 file") from None

    return ImageSource(str(paths[0]), len(paths), image_shape, False, np.uint8, 1, None, read)


def open_data(path: Path, image_shape: ImageShape | None = None) -> ImageSource:
    """Return ``data`` (n, 3, h, w) or (n, h, w, 3) of an HDF5 file and, if it has them, ``label`` (n,) or (n, 1).

    Floats are in 0..255, or in 0..1 if none of the first rows has a pixel above 1.

    Raises:
        UserError: The file is missing, not HDF5, has no images of ``image_shape`` (default: any shape), more than fit
            its size, or invalid labels.
    """
    file = hdf5.open_untrusted(path)
    data = hdf5.get_local(file, "data")
    if not isinstance(data, hdf5.Dataset):
        raise UserError(f"{path} has no dataset 'data'; store its images there, as (n, 3, h, w) or (n, h, w, 3)")
    shape, channels_first = _layout(data, image_shape)
    labels = _labels(hdf5.get_local(file, "label"), len(data), path)
    dtype: type[np.generic] = np.uint8 if data.dtype == np.uint8 else np.float32
    first = data[:SCALE_CHECK_ROWS]  # of any type, because a file may hold less than it says
    in_bytes = data.dtype.kind != "f" or not (first.max(initial=0) <= 1)

    def read(start: int, stop: int) -> Pixels:
        with np.errstate(over="ignore"):
            return np.asarray(data[start:stop], dtype)

    return ImageSource(str(path), len(data), shape, channels_first, dtype, 1 if in_bytes else 255, labels, read)


def batch_size(source: ImageSource) -> int:
    """Return how many images are classified at once: fewer if they are large."""
    height, width, _ = source.image_shape
    return max(1, min(BATCH, BATCH_PIXELS // (height * width)))


def _layout(data: hdf5.Dataset, expected: ImageShape | None) -> tuple[ImageShape, bool]:
    """Return (h, w, 3) and whether the channels come first; the expected shape decides where both are possible."""
    shape, path = data.shape, data.path
    layouts: list[tuple[ImageShape, bool]] = []
    if data.ndim == 4 and shape[3] == 3:
        layouts.append(((shape[1], shape[2], 3), False))
    if data.ndim == 4 and shape[1] == 3:
        layouts.append(((shape[2], shape[3], 3), True))
    # Checked by shape before a byte is read: a file of a kilobyte can promise terabytes.
    if not layouts or not 0 < len(data) <= MAX_ROWS or max(shape[1:]) > MAX_SIDE:
        raise UserError(f"{path}: data {shape} {data.dtype} has no images; it must be (n, 3, h, w) or (n, h, w, 3)")
    for layout in layouts:
        if expected in (None, layout[0]):
            return layout
    size = "×".join(map(str, expected or ()))
    raise UserError(f"{path}: data {shape}, but network and autoencoder take {size}; pass data of that size")


def _labels(data: Any, count: int, path: Path) -> Labels | None:
    if data is None:
        return None
    if not isinstance(data, hdf5.Dataset) or not data.shape or data.size != count or data.shape[0] != count:
        raise UserError(f"{path}: label {getattr(data, 'shape', '')} does not fit {count} images; it must be (n,)")
    values = data[()].ravel()
    if not ((values >= 0) & (values < MAX_ROWS) & (values == np.floor(values))).all():
        raise UserError(f"{path}: label has a value that is not a whole number from 0; correct the file")
    return values.astype(np.int32)

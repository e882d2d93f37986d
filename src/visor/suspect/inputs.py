"""What is judged: HDF5 files of ``data`` and pictures, read in batches so that memory never grows with n."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from visor.core import hdf5
from visor.core.errors import UserError
from visor.core.types import Integers
from visor.data import images
from visor.data.images import ImageDecodeError

MAX_SIDE, MAX_ROWS = 1024, 10_000_000
MAX_RATIO = 1000  # of promised to stored bytes; gzip packs no photograph as tightly
SCALE_CHECK_ROWS = 256  # rows by which floats in 0..1 are told from floats in 0..255
CACHE_BYTES = 16 << 20  # a chunk may hold rows of several batches

Pixels = NDArray[Any]


class ImageSource(NamedTuple):
    """``total`` images of ``image_shape`` (h, w, 3) in one layout and type.

    ``read(start, stop)`` returns ``dtype`` (k, h, w, 3), or (k, 3, h, w) if ``channels_first``; multiplied by
    ``unit`` they are in 0..255. ``labels`` are int32 (n,), None if the file has none.
    """

    name: str
    total: int
    image_shape: tuple[int, int, int]
    channels_first: bool
    dtype: type[np.generic]
    to_255: int
    labels: Integers | None
    read: Callable[[int, int], Pixels]


def open_sources(paths: Sequence[Path], image_shape: tuple[int, int, int]) -> list[ImageSource]:
    """Return the images of all files in their order: a source for each HDF5 file and each run of pictures.

    Raises:
        UserError: a file is missing, or an HDF5 file is not as ``open_data`` wants it.
    """
    found = []
    for is_data, group in groupby(paths, hdf5.is_hdf5):
        if is_data:
            found += [open_data(path, image_shape) for path in group]
        else:
            found.append(open_images(list(group), image_shape))
    return found


def open_images(paths: Sequence[Path], image_shape: tuple[int, int, int]) -> ImageSource:
    """Return PNG, JPEG and other pictures as a source; one of another size is cut to the aspect and resized.

    Its ``read`` raises UserError on a picture that cannot be decoded.
    """
    height, width, _ = image_shape

    def read(start: int, stop: int) -> Pixels:
        try:
            return np.concatenate([images.read_face(path, str(path), 1.0, height, width) for path in paths[start:stop]])
        except ImageDecodeError as error:
            name, reason = error.args
            raise UserError(f"{name} cannot be judged ({reason}); name an image or HDF5 file that is whole") from None

    return ImageSource(str(paths[0]), len(paths), image_shape, False, np.uint8, 1, None, read)


def open_data(path: Path, image_shape: tuple[int, int, int] | None = None) -> ImageSource:
    """Return an HDF5 file's ``data`` (n, 3, h, w) or (n, h, w, 3) and, if it has them, ``label`` (n,) or (n, 1).

    Floats are in 0..255, or in 0..1 if none of the first rows has a pixel above 1.

    Raises:
        UserError: missing, not HDF5, no ``data``, no images, too many for the file's size, not of ``image_shape`` (if
            given), or wrong labels.
    """
    with hdf5.open_untrusted(path) as file:
        data = hdf5.get_local(file, "data", path)
        if not isinstance(data, h5py.Dataset):
            raise UserError(f"{path} has no dataset 'data'; its images belong there, as (n, 3, h, w) or (n, h, w, 3)")
        shape, channels_first = _layout(data, path, image_shape)
        labels = _labels(hdf5.get_local(file, "label", path), len(data), path)
        dtype: type[np.generic] = np.uint8 if data.dtype == np.uint8 else np.float32
        in_bytes = data.dtype.kind != "f" or not (data[:SCALE_CHECK_ROWS].max(initial=0) <= 1)
        count, name = len(data), data.name
        cache = max(CACHE_BYTES, hdf5.chunk_bytes(data))

    file = h5py.File(path, "r", rdcc_nbytes=cache)  # stays open as long as the source is

    def read(start: int, stop: int) -> Pixels:
        try:
            return np.asarray(file[name][start:stop], dtype)
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: rows {start} to {stop} cannot be read ({error}); fetch it again") from None

    return ImageSource(str(path), count, shape, channels_first, dtype, 1 if in_bytes else 255, labels, read)


def _layout(data: h5py.Dataset, path: Path, wanted: tuple[int, int, int] | None) -> tuple[tuple[int, int, int], bool]:
    """Return (h, w, 3) and whether the channels come first; what the network takes settles a doubt."""
    shape = data.shape
    found = []
    if data.ndim == 4 and shape[3] == 3:
        found.append((shape[1:], False))
    if data.ndim == 4 and shape[1] == 3:
        found.append(((*shape[2:], 3), True))
    # Judged by shape before a byte is read: a file of a kilobyte can promise terabytes.
    if not found or not 0 < len(data) <= MAX_ROWS or max(shape[1:]) > MAX_SIDE:
        raise UserError(f"{path}: data {shape} {data.dtype} holds no images; it must be (n, 3, h, w) or (n, h, w, 3)")
    if data.nbytes > MAX_RATIO * data.id.get_storage_size():
        raise UserError(f"{path}: data {shape} is more than the file can hold; it was never written, fetch it again")
    for layout in found:
        if wanted in (None, layout[0]):
            return layout
    height, width, _ = wanted or (0, 0, 0)
    raise UserError(
        f"{path}: data {shape}, but network and autoencoder take {height}×{width}×3; name data of that size"
    )


def _labels(data: Any, count: int, path: Path) -> Integers | None:
    if data is None:
        return None
    if not isinstance(data, h5py.Dataset) or data.size != count or data.shape[0] != count:
        raise UserError(f"{path}: label {getattr(data, 'shape', '')} does not fit {count} images; it must be (n,)")
    values = data[()].ravel()
    if not ((values >= 0) & (values < MAX_ROWS) & (values == np.floor(values))).all():
        raise UserError(f"{path}: label holds a value that is no whole number from 0; correct the file")
    return values.astype(np.int32)

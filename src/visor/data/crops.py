"""Crops of faces in photos, and perturbations of a crop pasted back into its photo.

A crop is linear in the photo: means of blocks of pixels, if the crop is much smaller than the face, then samples
between four blocks each (bilinear), ``SAMPLES`` × ``SAMPLES`` per pixel of the crop, and their mean. Attacks use the
same samples in TensorFlow (``visor.photos.evade``), so what they change are pixels of the photo.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats, ImageArray

SAMPLES = 2  # along each side of a pixel of the crop: blocks no larger than their distance are all sampled


class CropBox(NamedTuple):
    """Position of a crop: a box in pixels of the photo, rotated clockwise about its centre by ``angle`` degrees."""

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0


class CropRegion(NamedTuple):
    """Part of a photo that a crop (h, w) samples: ``blocks`` float32 (r, c, 3) in [0, 1], means of ``step``² pixels.

    ``first`` is the row and column of the first block in the photo's blocks; ``places`` float32 (SAMPLES·h, SAMPLES·w,
    2) are the rows and columns of the samples in ``blocks``, none beyond the centres of the outer blocks.
    """

    blocks: Floats
    step: int
    first: tuple[int, int]
    places: Floats


def expand_box(box: Sequence[float], margin: float, aspect: float, angle: float = 0.0) -> CropBox:
    """Expand a face box [x, y, w, h] in pixels, rotated clockwise by ``angle``, to a crop box.

    ``margin`` is the share of the width and height added on each side; ``aspect`` is height / width of the crop, whose
    shorter side is extended around the centre.
    """
    x, y, width, height = map(float, box)
    wide = max(width, height / aspect) * (1 + 2 * margin)
    high = wide * aspect
    return CropBox(x + (width - wide) / 2, y + (height - high) / 2, wide, high, angle)


def align_box(points: Sequence[Sequence[float]], template: Sequence[Sequence[float]]) -> CropBox:
    """Return the square crop box that brings points of a face to their places in a template.

    ``points`` (k, 2) are x and y in pixels of the photo; ``template`` (k, 2) has their places as shares of the crop. It
    is the similarity (turn, scale, shift) of least squares, which two points determine.
    """
    here, there = (np.asarray(pairs, np.float64) @ [1, 1j] for pairs in (points, template))  # as complex numbers
    spread = there - there.mean()
    turn = np.vdot(spread, here - here.mean()) / np.vdot(spread, spread)  # its length is the side of the crop
    middle, side = complex(here.mean() + turn * (0.5 + 0.5j - there.mean())), float(abs(turn))
    return CropBox(middle.real - side / 2, middle.imag - side / 2, side, side, float(np.degrees(np.angle(turn))))


def crop(image: ImageArray, box: CropBox, shape: tuple[int, int]) -> ImageArray:
    """Crop a photo uint8 (h, w, 3) to a box, upright and resized: uint8 (*shape, 3)."""
    blocks, _, _, places = region(image, box, shape)
    low = np.floor(places).astype(np.int32)
    high = np.minimum(low + 1, np.array(blocks.shape[:2]) - 1)
    down, right = np.moveaxis(places - low, -1, 0)[..., np.newaxis]
    (top, left), (bottom, end) = np.moveaxis(low, -1, 0), np.moveaxis(high, -1, 0)
    above = blocks[top, left] * (1 - right) + blocks[top, end] * right
    below = blocks[bottom, left] * (1 - right) + blocks[bottom, end] * right
    samples = above * (1 - down) + below * down
    height, width = shape
    mean = samples.reshape(height, SAMPLES, width, SAMPLES, 3).mean(axis=(1, 3))
    return np.rint(mean * 255).astype(np.uint8)


def region(image: ImageArray, box: CropBox, shape: tuple[int, int]) -> CropRegion:
    """Return the part of a photo uint8 (h, w, 3) that a crop to ``shape`` (h, w) samples."""
    apart = max(box.height / shape[0], box.width / shape[1]) / SAMPLES  # samples, in pixels of the photo
    step = max(1, int(np.ceil(apart)))
    last = -(-np.array(image.shape[:2]) // step) - 1
    places = np.clip(_samples(box, shape) / step - 0.5, 0, last)
    begin = np.floor(places.min(axis=(0, 1))).astype(int)
    end = np.minimum(np.floor(places.max(axis=(0, 1))).astype(int) + 1, last) + 1
    pixels = image[begin[0] * step : end[0] * step, begin[1] * step : end[1] * step]
    missing = (end - begin) * step - pixels.shape[:2]  # of the last blocks, at the photo's edge
    pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
    rows, columns = (end - begin).tolist()
    blocks = pixels.reshape(rows, step, columns, step, 3).mean(axis=(1, 3), dtype=np.float32) / np.float32(255)
    return CropRegion(blocks, step, (int(begin[0]), int(begin[1])), (places - begin).astype(np.float32))


def sample_places(box: CropBox, shape: tuple[int, int], photo: tuple[int, int]) -> Floats:
    """Return where a crop to ``shape`` (h, w) samples a ``photo`` (h, w): float32 (SAMPLES·h, SAMPLES·w, 2).

    Rows and columns as in ``CropRegion.places``, in pixels of the photo: for a box of at most SAMPLES times the shape.
    """
    return np.clip(_samples(box, shape) - 0.5, 0, np.array(photo) - 1).astype(np.float32)


def sampled_mask(part: CropRegion) -> Floats:
    """Return 1 where a region's blocks are part of its crop, 0 elsewhere: float32 (r, c, 1)."""
    mask = np.zeros((*part.blocks.shape[:2], 1), np.float32)
    low = np.floor(part.places).astype(int)
    high = np.minimum(low + 1, np.array(mask.shape[:2]) - 1)
    for rows in (low[..., 0], high[..., 0]):
        for columns in (low[..., 1], high[..., 1]):
            mask[rows, columns] = 1
    return mask


def paste_perturbation(
    image: ImageArray, clean: ImageArray, part: CropRegion, change: Floats, max_levels: int
) -> ImageArray:
    """Add a perturbation float32 (r, c, 3), in levels of 255, of a region's blocks to the pixels of a photo.

    Both photos are uint8 (h, w, 3). The result differs from ``clean`` by at most ``max_levels``: regions may overlap.
    """
    result = image.copy()
    (top, left), step = part.first, part.step
    rows, columns = change.shape[:2]
    where = np.s_[top * step : (top + rows) * step, left * step : (left + columns) * step]
    height, width = result[where].shape[:2]
    moves = np.rint(change).astype(np.int16).repeat(step, axis=0).repeat(step, axis=1)[:height, :width]
    original = clean[where].astype(np.int16)
    moved = np.clip(result[where] + moves, original - max_levels, original + max_levels)
    result[where] = np.clip(moved, 0, 255)
    return result


def pad_with_border(images: ImageArray, border: float, grey: int) -> ImageArray:
    """Return images (n, h, w, 3) with a uniform border: on each side ``border`` of their height or width, rounded."""
    rows, columns = (round(border * length) for length in images.shape[1:3])
    return np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), constant_values=grey)


def bounding_slices(box: CropBox, shape: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of a photo of ``shape`` (h, w, …) that a box, rotated or not, touches."""
    corners = _rotate(np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]), box)
    begin = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, shape[:2])
    end = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, shape[:2])
    return slice(int(begin[0]), int(end[0])), slice(int(begin[1]), int(end[1]))


def _samples(box: CropBox, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return rows and columns of samples (SAMPLES·h, SAMPLES·w, 2) in pixels of the photo, whose corner is (0, 0)."""
    rows, columns = ((np.arange(side * SAMPLES) + 0.5) / (side * SAMPLES) - 0.5 for side in shape)
    return _rotate(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1), box)


def _rotate(shares: NDArray[np.float64], box: CropBox) -> NDArray[np.float64]:
    """Return rows and columns in a photo for shares (…, 2) of a box's height and width, counted from its centre."""
    down, right = shares[..., 0] * box.height, shares[..., 1] * box.width
    sine, cosine = np.sin(np.radians(box.angle)), np.cos(np.radians(box.angle))
    middle = [box.y + box.height / 2, box.x + box.width / 2]
    return np.stack([right * sine + down * cosine, right * cosine - down * sine], axis=-1) + middle

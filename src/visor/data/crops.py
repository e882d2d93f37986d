"""Faces in photos: where they are cut out, the cut as a recogniser sees it, and changes of the cut put back.

A crop is linear in the photo: means of blocks of pixels, where a crop is much smaller than the face, then samples
between four blocks each (bilinear), ``SAMPLES`` × ``SAMPLES`` a pixel of the crop, and their mean. An attack goes by
the same samples in TensorFlow (``visor.photos.evade``), so what it changes are pixels of the photo.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats, ImageArray

SAMPLES = 2  # along each side of a pixel of the crop: with blocks no greater than their distance, none is overlooked


class CropBox(NamedTuple):
    """Where a crop lies: a box in pixels of the photo, turned clockwise about its centre by ``angle`` degrees."""

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0


class CropRegion(NamedTuple):
    """What a crop (h, w) is made of: ``blocks`` float32 (r, c, 3) in [0, 1], means of ``step`` × ``step`` pixels.

    ``first`` is the row and column, in blocks of the photo, of the first; ``places`` float32 (SAMPLES·h, SAMPLES·w, 2)
    are rows and columns in ``blocks`` at which the samples lie, none beyond their centres: past the photo's edge its
    last pixels go on.
    """

    blocks: Floats
    step: int
    first: tuple[int, int]
    places: Floats


def expand_box(box: Sequence[float], margin: float, aspect: float, angle: float = 0.0) -> CropBox:
    """Return the frame around a face.

    box: [x, y, w, h] in pixels. margin: share of each side that is added at both of its ends. aspect: height / width
    of the frame; the side that is too short for it is enlarged about the centre, the other stays.
    """
    x, y, width, height = map(float, box)
    wide = max(width, height / aspect) * (1 + 2 * margin)
    high = wide * aspect
    return CropBox(x + (width - wide) / 2, y + (height - high) / 2, wide, high, angle)


def crop(image: ImageArray, frame: CropBox, shape: tuple[int, int]) -> ImageArray:
    """Return what a photo uint8 (h, w, 3) shows in a frame, upright, as uint8 (*shape, 3)."""
    blocks, _, _, places = region(image, frame, shape)
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


def region(image: ImageArray, frame: CropBox, shape: tuple[int, int]) -> CropRegion:
    """Return what the crop (h, w) of a frame is made of in a photo uint8 (h, w, 3)."""
    apart = max(frame.height / shape[0], frame.width / shape[1]) / SAMPLES  # samples, in pixels of the photo
    step = max(1, int(np.ceil(apart)))
    last = -(-np.array(image.shape[:2]) // step) - 1
    places = np.clip(_samples(frame, shape) / step - 0.5, 0, last)
    begin = np.floor(places.min(axis=(0, 1))).astype(int)
    end = np.minimum(np.floor(places.max(axis=(0, 1))).astype(int) + 1, last) + 1
    pixels = image[begin[0] * step : end[0] * step, begin[1] * step : end[1] * step]
    missing = (end - begin) * step - pixels.shape[:2]  # of the last blocks, at the photo's edge
    pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
    rows, columns = (end - begin).tolist()
    blocks = pixels.reshape(rows, step, columns, step, 3).mean(axis=(1, 3), dtype=np.float32) / np.float32(255)
    return CropRegion(blocks, step, (int(begin[0]), int(begin[1])), (places - begin).astype(np.float32))


def sampled_mask(part: CropRegion) -> Floats:
    """Return where a region's blocks are part of its crop: 1, elsewhere 0, float32 (r, c, 1)."""
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
    """Return a photo with a change of a region's blocks added to its pixels; both photos are uint8 (h, w, 3).

    change: float32 (r, c, 3) in levels of 255. No value of the result is more than ``most`` levels from ``clean``:
    regions of one photo may overlap.
    """
    result = image.copy()
    (top, left), step = part.first, part.step
    rows, columns = change.shape[:2]
    where = np.s_[top * step : (top + rows) * step, left * step : (left + columns) * step]
    height, width = result[where].shape[:2]
    moves = np.rint(change).astype(np.int16).repeat(step, axis=0).repeat(step, axis=1)[:height, :width]
    kept = clean[where].astype(np.int16)
    moved = np.clip(result[where] + moves, kept - max_levels, kept + max_levels)
    result[where] = np.clip(moved, 0, 255)
    return result


def bounding_slices(frame: CropBox, shape: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of a photo of ``shape`` (h, w, …) that a frame, turned or not, touches."""
    corners = _rotate(np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]), frame)
    begin = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, shape[:2])
    end = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, shape[:2])
    return slice(int(begin[0]), int(end[0])), slice(int(begin[1]), int(end[1]))


def _samples(frame: CropBox, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return rows and columns of samples (SAMPLES·h, SAMPLES·w, 2) in pixels of the photo, whose corner is (0, 0)."""
    rows, columns = ((np.arange(side * SAMPLES) + 0.5) / (side * SAMPLES) - 0.5 for side in shape)
    return _rotate(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1), frame)


def _rotate(shares: NDArray[np.float64], frame: CropBox) -> NDArray[np.float64]:
    """Return rows and columns in a photo for shares (…, 2) of a frame's height and width, counted from its centre."""
    down, right = shares[..., 0] * frame.height, shares[..., 1] * frame.width
    sine, cosine = np.sin(np.radians(frame.angle)), np.cos(np.radians(frame.angle))
    middle = [frame.y + frame.height / 2, frame.x + frame.width / 2]
    return np.stack([right * sine + down * cosine, right * cosine - down * sine], axis=-1) + middle

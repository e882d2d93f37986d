"""Scenes as networks take them: squares of one size, in batches."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from visor.errors import UserError
from visor.faces import Data, Images, Integers
from visor.scenes.scene_set import FACE, PADDING, SETS, Boxes, Rows, SceneSet, Truth

GREY = 127  # of 255: around what is not square, and what contrast leaves as it is


def scale(image: Images, boxes: Boxes, side: int) -> tuple[Images, Boxes]:
    """Scale an image uint8 (h, w, 3) and its boxes (k, 4) to a longer side of ``side`` pixels."""
    height, width = image.shape[:2]
    if max(height, width) == side:
        return image, boxes
    factor = side / max(height, width)
    down, across = (max(1, round(length * factor)) for length in (height, width))
    scaled = np.asarray(Image.fromarray(image).resize((across, down), Image.Resampling.BILINEAR))
    return scaled, boxes * np.array([across / width, down / height] * 2, np.float32)


def letterbox(image: Images, boxes: Boxes, side: int) -> tuple[Images, Boxes]:
    """Scale an image uint8 (h, w, 3) and its boxes (k, 4), and put it at the top left of a grey square.

    Returns:
        uint8 (side, side, 3) and float32 (k, 4). An image of side × side is returned as it is.
    """
    scaled, boxes = scale(image, boxes, side)
    return _squared(scaled, side), boxes


def _squared(image: Images, side: int) -> Images:
    if image.shape[:2] == (side, side):
        return image
    canvas = np.full((side, side, 3), GREY, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def read_canvases(scenes: SceneSet, rows: Rows, side: int, batch: int, most: int) -> Iterator[tuple[Images, Truth]]:
    """Yield letterboxed images uint8 (k ≤ batch, side, side, 3) and their truth, read as they are needed.

    The truth is boxes float32 (k, most, 4), padded with zeros, and kinds int32 (k, most).
    """
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        pictures = (letterbox(scenes.image(row), scenes.truth(row)[0], side) for row in part)
        yield _stacked(pictures, [scenes.truth(row)[1] for row in part], side, most)


def training_data(scenes: SceneSet, rows: Rows, side: int, seed: int) -> Data:
    """Return ``rows`` as data of a fit: images and truth as of ``read_canvases``.

    In an epoch the order, who is mirrored, and each scene's contrast (× 0.75 … 1.25) and brightness (± 25) depend on
    (seed, epoch) alone.

    Raises:
        UserError: there is no face in them.
    """
    if not any((scenes.truth(row)[1] == FACE).any() for row in rows):
        name = SETS[scenes.sets[rows[0]]]
        raise UserError(f"{scenes.path}: its {name} scenes hold no face to learn from; raise scenes.{name}")
    state, most = scenes.path.stat(), scenes.most
    digest = hashlib.sha256(f"{scenes.path} {state.st_size} {state.st_mtime_ns} {side} {seed}".encode())
    digest.update(np.ascontiguousarray(rows).tobytes())

    def batches(batch: int, epoch: int | None) -> Iterator[tuple[Images, Truth]]:
        if epoch is None:
            yield from read_canvases(scenes, rows, side, batch, most)
            return
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(rows)
        mirrored = generator.random(len(rows)) < 0.5
        contrast, brightness = generator.uniform([0.75, -25], [1.25, 25], (len(rows), 2)).T[..., None]
        tones = np.rint(np.clip((np.arange(256) - GREY) * contrast + GREY + brightness, 0, 255)).astype(np.uint8)
        for start in range(0, len(rows), batch):
            part = range(start, min(start + batch, len(rows)))
            pictures = (_varied(scenes, order[place], side, mirrored[place], tones[place]) for place in part)
            yield _stacked(pictures, [scenes.truth(order[place])[1] for place in part], side, most)

    return Data(len(rows), batches, digest.hexdigest())


def _varied(scenes: SceneSet, row: int, side: int, mirrored: bool, tones: Images) -> tuple[Images, Boxes]:
    """Return a letterboxed scene, perhaps mirrored, whose value v is ``tones[v]``."""
    image, boxes = scale(scenes.image(row), scenes.truth(row)[0], side)
    if mirrored:
        left = image.shape[1] - boxes[:, :1] - boxes[:, 2:3]
        image, boxes = image[:, ::-1], np.concatenate([left, boxes[:, 1:]], axis=1)
    return _squared(tones[image], side), boxes


def _stacked(
    pictures: Iterable[tuple[Images, Boxes]], kinds: Sequence[Integers], side: int, most: int
) -> tuple[Images, Truth]:
    images = np.empty((len(kinds), side, side, 3), np.uint8)
    padded, padded_kinds = np.zeros((len(kinds), most, 4), np.float32), np.full((len(kinds), most), PADDING, np.int32)
    for place, ((image, boxes), kind) in enumerate(zip(pictures, kinds, strict=True)):
        images[place] = image
        padded[place, : len(boxes)], padded_kinds[place, : len(kind)] = boxes, kind
    return images, (padded, padded_kinds)

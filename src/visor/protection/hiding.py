"""Hide the faces of one photo from a detector.

The perturbation is searched for on a reduced copy, enlarged, and judged on the photo as it will be saved. Copies are
padded to multiples of ``CLASS`` pixels, so that graphs are traced for a few sizes and not for each photo's own.
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visor.boxes import TOUCHES, iou
from visor.detectors import Detector, Found
from visor.detectors.mtcnn import FACTOR
from visor.errors import UserError
from visor.evasion.eight_bit import levels
from visor.evasion.objectives import OBJECTIVES, face_masks
from visor.evasion.pgd import PGD, compile_pgd
from visor.faces import Images
from visor.scenes import FACE, GREY

CLASS = 64  # pixels; sides are padded to multiples
FACES = 64  # true boxes are padded to multiples, too
LARGEST = 2048  # pixels of the longer side in which faces are looked for
MOMENTUM = 0.9  # without it more starts leave a face, for the same gradients


class Settings(NamedTuple):
    """Bound ``eps`` in [0, 1], gradient steps, objective, where to perturb (``faces`` enlarged by ``margin``, or
    everywhere), the longer side in pixels of the copy that is searched on, and how many searches a photo is worth.
    """

    eps: float
    iterations: int
    objective: str = "suppress"
    mask: str = "none"
    margin: float = 0.2
    side: int = 1024
    attempts: int = 2
    seed: int = 1


Floats = NDArray[np.float32]
Search = Callable[[Images, Floats, int], Images]


def look(detector: Detector, image: Images) -> Found:
    """Return the faces that a detector is sure of in a photo uint8 (h, w, 3), boxes in the photo's pixels."""
    reduced = _reduced(image, LARGEST)
    (found,) = detector.detect(_padded(reduced)[np.newaxis])
    height, width = reduced.shape[:2]
    corners = np.minimum(found.boxes[:, :2] + found.boxes[:, 2:], [width, height])
    start = np.maximum(found.boxes[:, :2], 0)
    sure = (found.scores >= detector.threshold) & (corners > start).all(axis=1)
    boxes = np.concatenate([start, corners - start], 1)[sure] * (image.shape[1] / width)
    return Found(boxes.astype(np.float32), found.scores[sure])


def compile_search(detector: Detector, settings: Settings) -> Search:
    """Return ``search(photo, boxes of its faces, number)`` → the photo uint8 (h, w, 3), perturbed.

    The number of an attempt makes its random start.

    Raises:
        UserError: the detector gives the objective no gradient.
    """
    if detector.candidates is None:
        raise UserError(f"--detector {detector.name} gives no gradient to attack by; choose another")
    loss = OBJECTIVES[settings.objective](detector.candidates, detector.loss, detector.threshold, 1.0)
    step = 2.5 * settings.eps / settings.iterations
    attack = compile_pgd(loss, PGD(settings.eps, settings.iterations, step, MOMENTUM, seed=settings.seed))

    def search(image: Images, boxes: Floats, number: int) -> Images:
        copy = _reduced(image, settings.side)
        boxes, kinds = _truth(boxes * (copy.shape[1] / image.shape[1]))
        canvas = _padded(copy)
        mask = np.zeros((1, *canvas.shape[:2], 1), np.float32)
        mask[:, : copy.shape[0], : copy.shape[1]] = 1
        if settings.mask == "faces":
            mask *= face_masks(boxes, kinds, canvas.shape[:2], settings.margin)
        found = attack(canvas[np.newaxis], (boxes, kinds), [number], mask).images[0]
        change = (found * 255 - canvas)[: copy.shape[0], : copy.shape[1]]
        return add(image, change, levels(settings.eps))

    return search


def hide(detector: Detector, search: Search, image: Images, before: Found, attempts: int) -> tuple[Images, Found]:
    """Return the photo with the fewest faces left of several searches, and those faces; one without any ends it."""
    best, left = image, before
    for number in range(attempts if len(before.boxes) else 0):
        tried = search(image, before.boxes, number)
        found = look(detector, tried)
        if number == 0 or len(found.boxes) < len(left.boxes):
            best, left = tried, found
        if not len(left.boxes):
            break
    return best, left


def new_boxes(before: Floats, after: Floats) -> int:
    """Return how many of the boxes (m, 4) found after touch no face (k, 4) that was found before."""
    return int((iou(after, before).max(axis=1, initial=0.0) < TOUCHES).sum())


def add(image: Images, change: NDArray[np.floating[Any]], most: int) -> Images:
    """Add a change, in levels and enlarged to the photo's size, of at most ``most`` levels in each value."""
    height, width = image.shape[:2]
    result = np.empty_like(image)
    for channel in range(3):  # one after the other: a photo of twelve megapixels in floats is large
        plane = Image.fromarray(np.ascontiguousarray(change[..., channel], np.float32))
        if plane.size != (width, height):
            plane = plane.resize((width, height), Image.Resampling.NEAREST)  # others would blur it away
        moved = image[..., channel] + np.clip(np.rint(np.asarray(plane)), -most, most).astype(np.int16)
        result[..., channel] = np.clip(moved, 0, 255)
    return result


def _reduced(image: Images, side: int) -> Images:
    """Return a photo whose longer side is at most ``side`` pixels, smaller by a power of MTCNN's ``FACTOR``.

    So levels of its pyramid are levels of the photo's, too, and what blinds it here blinds it there.
    """
    excess = max(image.shape[:2]) / side
    if excess <= 1:
        return image
    scale = FACTOR ** np.ceil(np.log(excess) / -np.log(FACTOR))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _padded(image: Images) -> Images:
    """Return a photo with grey to the right and below, up to multiples of ``CLASS`` pixels."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % CLASS), (0, -width % CLASS), (0, 0)), constant_values=GREY)


def _truth(boxes: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Return boxes (1, m, 4) and kinds (1, m), m the next multiple of ``FACES``."""
    count = len(boxes)
    padded = np.zeros((1, max(FACES, count + -count % FACES), 4), np.float32)
    kinds = np.zeros(padded.shape[:2], np.int32)
    padded[0, :count], kinds[0, :count] = boxes, FACE
    return padded, kinds

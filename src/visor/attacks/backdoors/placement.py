"""Puts accessories on faces that are not aligned: five points of each face, found by MTCNN, say where they go.

MTCNN (Zhang et al. 2016, arXiv 1604.02878) comes with its weights in the package ``mtcnn``.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from visor.core.errors import UserError
from visor.core.types import Floats, ImageArray
from visor.data.images import alpha_mask

LandmarkFn = Callable[[ImageArray], Floats]

# Where keys are drawn: left eye, right eye, nose, left and right corner of the mouth (of the picture), in shares of
# the width and of the height of a frame of 47:55. It is where MTCNN finds them on the mean of the embedded faces.
ASPECT = 55 / 47
CANONICAL_LANDMARKS = np.array([[0.346, 0.4155], [0.654, 0.4155], [0.5, 0.594], [0.377, 0.7295], [0.623, 0.7295]])

SHORT_SIDE = 128  # pixels that MTCNN sees: it looks for faces of 20 and more
BATCH = 64
SUBPIXEL_STEPS = 16  # a pixel; finer digits than these depend on the processor
OVERSAMPLING = 3


@cache
def landmark_finder() -> LandmarkFn:
    """Load MTCNN; return uint8 images (n, h, w, 3) → the points float64 (n, 5, 2) of the largest face in each.

    They are x and y in pixels, in the order of ``CANONICAL``; NaN where no face is found.
    """
    from visor.models.mtcnn import MTCNN, load_mtcnn  # TensorFlow starts with it: only a key that is moved needs that

    network = MTCNN(stages=load_mtcnn())

    def find(images: ImageArray) -> Floats:
        points = np.full((len(images), 5, 2), np.nan)
        for begin in range(0, len(images), BATCH):
            batch, scale = _enlarged(images[begin : begin + BATCH])
            # Lines of image, x, y, width, height, confidence, five x, five y: the largest last, so that it stays.
            found = np.asarray(network.detect_faces(batch, output_type="numpy")).reshape(-1, 16)
            for line in found[np.argsort(found[:, 3] * found[:, 4], kind="stable")]:
                points[begin + int(line[0])] = line[6:].reshape(2, 5).T / scale
        return np.rint(points * SUBPIXEL_STEPS) / SUBPIXEL_STEPS

    return find


def _enlarged(images: ImageArray) -> tuple[list[ImageArray], float]:
    """Return the images with a short side of ``SHORT_SIDE`` pixels, and the factor."""
    height, width = images.shape[1:3]
    scale = SHORT_SIDE / min(height, width)
    shape = round(width * scale), round(height * scale)
    resized = [Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC) for image in images]
    return [np.asarray(image) for image in resized], scale


def fit_similarity(source: Floats, target: Floats) -> Floats:
    """Return the matrices (n, 2, 3) of the turn, scale and shift that bring points (k, 2) nearest to (n, k, 2).

    Least squares (Umeyama 1991, IEEE PAMI 13(4)). In the plane, turn and scale are one complex factor, and the
    fit is linear regression on complex numbers.
    """
    start, end = source @ [1, 1j], target @ [1, 1j]
    offset = start - start.mean()
    factor = ((end - end.mean(axis=1, keepdims=True)) @ offset.conj()) / (offset @ offset.conj()).real
    shift = end.mean(axis=1) - factor * start.mean()
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.moveaxis(np.array(rows), -1, 0)


def warp(key: ImageArray, matrix: Floats, height: int, width: int) -> ImageArray:
    """Return the key uint8 (h, w, 4) moved by a matrix (2, 3) of pixels, on a frame (height, width, 4).

    What comes from outside the key is transparent.
    """
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    inverse[:, :2] /= OVERSAMPLING
    fine = Image.fromarray(key).transform(
        (width * OVERSAMPLING, height * OVERSAMPLING),
        Image.Transform.AFFINE,
        tuple(inverse.ravel()),
        Image.Resampling.BILINEAR,  # a wider kernel would overshoot where the key ends
    )
    return np.asarray(fine.resize((width, height), Image.Resampling.BOX))


class LandmarkPlacement:
    """Places keys on the faces of a batch and counts those in which no face is found: they keep the fixed place."""

    def __init__(self) -> None:
        self.images = 0
        self.missing = 0

    def __call__(self, images: ImageArray, keys: ImageArray) -> ImageArray:
        """Return a key for each of the images (n, h, w, 3), from keys (n, h, w, 4) or (1, h, w, 4).

        Raises:
            UserError: a key covers the whole frame; there is nothing to move.
        """
        if alpha_mask(keys).all(axis=(1, 2, 3)).any():
            raise UserError("params.yaml: placement landmarks moves accessories; this key covers all, so set fixed")
        height, width = images.shape[1:3]
        # A key is stretched to its frame; points have to be where nothing is stretched.
        unstretched = np.diag([1.0, width * ASPECT / height])
        points = landmark_finder()(images)
        matrices = fit_similarity(CANONICAL_LANDMARKS * [width, width * ASPECT], points)
        matrices[:, :, :2] = matrices[:, :, :2] @ unstretched
        found = np.isfinite(points[:, 0, 0])
        self.images += len(images)
        self.missing += int((~found).sum())
        every = np.broadcast_to(keys, (len(images), *keys.shape[1:]))
        placed = [
            warp(key, matrix, height, width) if there else key
            for key, matrix, there in zip(every, matrices, found, strict=True)
        ]
        return np.stack(placed) if placed else every

    def summary(self) -> str:
        """Return how many keys were placed, in words."""
        return f"no face found in {self.missing} of {self.images} images; their key has the fixed place"

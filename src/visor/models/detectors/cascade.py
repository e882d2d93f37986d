"""scikit-image's cascade for frontal faces: Viola and Jones 2001 with the features of Liao et al. 2007 (ICB, MB-LBP).

It has no gradient: it shows how well attacks on networks transfer to a method of another kind.
"""

from pathlib import Path

import numpy as np
from skimage import data
from skimage.feature import Cascade

from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.core.types import ImageArray
from visor.models.detectors.base import Detections, Detector

STEP, FACTOR = 1, 1.2  # pixels between windows, and from one size of windows to the next
HALF_SCORE_NEIGHBOURS = 4  # overlapping windows for a score of 0.5, scikit-image's default
NEIGHBOUR_COUNTS = (1, 4, 12)  # each is a pass over the image


def load(settings: DetectorParams, folder: Path) -> Detector:
    """Return the cascade; ``folder`` is not used. Option: ``min_face_size``, pixels of the smallest face.

    A score is k / (k + ``HALF_SCORE_NEIGHBOURS``) for the largest of ``NEIGHBOUR_COUNTS`` with which a box is found.

    Raises:
        UserError: An option is unknown or out of range.
    """
    options = {"min_face_size": 24} | settings.options
    min_size = options.pop("min_face_size")
    if options or not isinstance(min_size, int) or min_size < 12:
        raise UserError("cascade has one option, min_face_size, a whole number from 12 on; correct the options")
    cascade = Cascade(data.lbp_frontal_face_cascade_filename())

    def detect(images: ImageArray) -> list[Detections]:
        return [_detect_one(cascade, image, min_size) for image in images]

    return Detector("cascade", settings.threshold, detect, None, None)


def _detect_one(cascade: Cascade, image: ImageArray, min_size: int) -> Detections:
    """Return the boxes of one image (h, w, 3); those with more overlapping windows have higher scores."""
    max_size = min(image.shape[:2])
    neighbours: dict[tuple[int, int, int, int], int] = {}
    for count in NEIGHBOUR_COUNTS:
        options = {"min_size": (min_size, min_size), "max_size": (max_size, max_size), "min_neighbor_number": count}
        boxes = cascade.detect_multi_scale(image, FACTOR, STEP, **options) if max_size >= min_size else []
        neighbours |= {(box["c"], box["r"], box["width"], box["height"]): count for box in boxes}
        if not boxes:
            break
    boxes = np.array(sorted(neighbours, key=lambda box: (-neighbours[box], box)), np.float32).reshape(-1, 4)
    counts = np.array(sorted(neighbours.values(), reverse=True), np.float32)
    return Detections(boxes, counts / (counts + HALF_SCORE_NEIGHBOURS))

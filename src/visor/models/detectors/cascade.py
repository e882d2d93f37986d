"""The classic before networks: scikit-image's cascade of local binary patterns for frontal faces.

Viola and Jones 2001 with the features of Liao et al. 2007 (ICB, Multi-block LBP). It gives no gradient: it shows what
is left of an attack on networks when something quite different looks for faces.
"""

from pathlib import Path

import numpy as np
from skimage import data
from skimage.feature import Cascade

from visor.core.errors import UserError
from visor.core.params import DetectorParams as Settings
from visor.core.types import ImageArray
from visor.models.detectors.base import Detections, Detector

STEP, FACTOR = 1, 1.2  # pixels between windows, and from one size of windows to the next
HALF_SCORE_NEIGHBOURS = 4  # windows on one face that make a score of 0.5, as many as scikit-image asks for
NEIGHBOUR_COUNTS = (1, 4, 12)  # numbers that are asked for in turn; each is a pass over the image


def load(settings: Settings, folder: Path) -> Detector:
    """Return the cascade; ``folder`` is not needed. Option: ``min_face_size``, pixels of the smallest face.

    A score is k / (k + ``SURE``) for the largest number k of overlapping windows that the box survives to ask for.

    Raises:
        UserError: an option is unknown or out of range.
    """
    options = {"min_face_size": 24} | settings.options
    smallest = options.pop("min_face_size")
    if options or not isinstance(smallest, int) or smallest < 12:
        raise UserError(
            "cascade: its one option is min_face_size, a whole number of pixels from 12 on; correct the options"
        )
    cascade = Cascade(data.lbp_frontal_face_cascade_filename())

    def detect(images: ImageArray) -> list[Detections]:
        return [_found(cascade, image, smallest) for image in images]

    return Detector("cascade", settings.threshold, detect, None, None)


def _found(cascade: Cascade, image: ImageArray, smallest: int) -> Detections:
    """Return the boxes of one image (h, w, 3); those that more windows agree on have higher scores."""
    largest = min(image.shape[:2])
    scored: dict[tuple[int, int, int, int], int] = {}
    for windows in NEIGHBOUR_COUNTS:
        options = {"min_size": (smallest, smallest), "max_size": (largest, largest), "min_neighbor_number": windows}
        found = cascade.detect_multi_scale(image, FACTOR, STEP, **options) if largest >= smallest else []
        scored |= {(box["c"], box["r"], box["width"], box["height"]): windows for box in found}
        if not found:
            break
    boxes = np.array(sorted(scored, key=lambda box: (-scored[box], box)), np.float32).reshape(-1, 4)
    counts = np.array(sorted(scored.values(), reverse=True), np.float32)
    return Detections(boxes, counts / (counts + HALF_SCORE_NEIGHBOURS))

"""Where a recogniser looks at a face: the alignment belongs to the network, and every way to it goes through here."""

from collections.abc import Sequence
from math import dist

import numpy as np

from visor.core.types import ImageArray
from visor.data.crops import CropBox, align_box, crop, expand_box
from visor.models.mtcnn import find_faces
from visor.models.recognisers.base import Template

Landmarks = tuple[tuple[float, float], ...]  # (x, y) in pixels of the photo, in MTCNN's order

MIN_EYE_DISTANCE = 4  # pixels; closer eyes, of a face in profile, say nothing about its size
SEARCH_MARGIN, SEARCH_SIDE = 0.3, 128  # of the crop around a box in which landmarks are searched


def face_frame(
    box: Sequence[float],
    landmarks: Landmarks | None,
    template: Template | None,
    shape: Sequence[int],
    margin: float,
    angle: float = 0.0,
) -> CropBox:
    """Return the crop box of a face for crops of ``shape`` (h, w, …).

    It brings the landmarks to their places in the template if there are both; else it is the face's box
    [x, y, w, h], rotated clockwise by ``angle`` degrees, with the margin.
    """
    if template and landmarks and dist(landmarks[0], landmarks[1]) >= MIN_EYE_DISTANCE:
        return align_box(landmarks[: len(template)], template)
    return expand_box(box, margin, shape[0] / shape[1], angle)


def locate_landmarks(image: ImageArray, box: Sequence[float]) -> Landmarks | None:
    """Return the five landmarks of the face in a box of a photo uint8 (h, w, 3), where MTCNN finds it again.

    For boxes that another detector found, or somebody drew. Of several faces it is the one nearest to the middle.
    """
    frame = expand_box(box, SEARCH_MARGIN, 1.0)
    faces = find_faces([crop(image, frame, (SEARCH_SIDE, SEARCH_SIDE))])
    if not len(faces.boxes):
        return None
    middles = faces.boxes[:, :2] + faces.boxes[:, 2:] / 2
    nearest = faces.landmarks[np.linalg.norm(middles - SEARCH_SIDE / 2, axis=1).argmin()]
    points = nearest * (frame.width / SEARCH_SIDE) + [frame.x, frame.y]
    return tuple((float(x), float(y)) for x, y in points)

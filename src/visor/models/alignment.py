"""Where a recogniser looks at a face: the alignment belongs to the network, and every way to it goes through here."""

from collections.abc import Callable, Sequence
from math import dist

import numpy as np

from visor.core.types import Floats, ImageArray
from visor.data.crops import CropBox, align_box, crop, expand_box
from visor.models.mtcnn import find_faces
from visor.models.recognisers.base import Recogniser, Template, embeddings

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


def aligned_embeddings(
    recogniser: Recogniser, eyes: Sequence[Sequence[float]] | None
) -> Callable[[ImageArray], Floats]:
    """Return a function of aligned faces uint8 (n, h, w, 3) to embeddings float32 (n, d) of length 1.

    ``eyes`` (2, 2) are where they are in all images, x and y as shares of the width and height; None: not the same
    everywhere, so that the recogniser gets whole images.
    """
    embed, template, shape = embeddings(recogniser), recogniser.template, recogniser.image_shape
    if eyes is None or template is None:
        return embed

    def embed_aligned(images: ImageArray) -> Floats:
        height, width = images.shape[1:3]
        landmarks = tuple((x * width, y * height) for x, y in eyes)
        frame = face_frame((0, 0, width, height), landmarks, template, shape, 0.0)
        return embed(np.stack([crop(image, frame, (shape[0], shape[1])) for image in images]))

    return embed_aligned

"""Faces in a photo, upright or turned, by MTCNN: it gives the eyes, and these say which way up a face is."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from mtcnn import MTCNN
from numpy.typing import NDArray
from PIL import Image

from visor.boxes import iou
from visor.faces import Images
from visor.landmarks import mtcnn_stages

SHORTEST, LONGEST = 128, 1024  # pixels of the sides of the photo in which faces are looked for; MTCNN needs 20 a face
LONGEST_TURNED = 512  # of the turned copies: there are many
TURNS = (30, -30, 60, -60, 90, -90, 120, -120, 150, -150, 180)  # degrees; each way MTCNN finds what leans by 15
SURE, UPRIGHT = 0.99, 0.93  # score, and score · cos(lean), from which no other turn would show the face better
VOTES = 1.8  # sum of scores, so two copies, without which no face is believed that is seen in turned copies alone
AGREED = 20  # degrees between the angles that two copies give one face
SAME = 0.3  # IoU from which two boxes are one face
STEPS = 16  # a pixel; finer digits than these depend on the processor


class Face(NamedTuple):
    """A face: box [x, y, w, h] in pixels of the photo, before it is turned clockwise about its centre by ``angle``
    degrees, and MTCNN's score; None: the box was given by hand.
    """

    box: tuple[float, float, float, float]
    angle: float = 0.0
    score: float | None = None


class Seen(NamedTuple):
    """A face in a copy of the photo turned by ``turn`` degrees; ``rank`` is its score · cos(lean) there."""

    face: Face
    turn: float
    rank: float


Find = Callable[[Images], list[Face]]
Floats = NDArray[np.float64]


def finder() -> Find:
    """Load MTCNN; return uint8 (h, w, 3) → the faces, the largest first.

    A photo without a face, or with one that MTCNN is not sure of or that leans, is looked at in turned copies, too.
    """
    network = MTCNN(stages=mtcnn_stages())

    def find(image: Images) -> list[Face]:
        seen = _seen(network, image, 0, LONGEST)
        if not seen or any(one.rank < UPRIGHT or (one.face.score or 0) < SURE for one in seen):
            for turn in TURNS:
                seen += _seen(network, image, turn, LONGEST_TURNED)
        return sorted(_distinct(seen), key=lambda face: -face.box[2] * face.box[3])

    return find


def match(face: Face, others: Iterable[Face]) -> Face | None:
    """Return which of the other faces is where this one is, None if none is."""
    found = list(others)
    if not found:
        return None
    overlaps = iou(np.array([face.box]), np.array([other.box for other in found]))[0]
    return found[int(overlaps.argmax())] if overlaps.max() >= SAME else None


def _seen(network: MTCNN, image: Images, turn: float, longest: int) -> list[Seen]:
    """Return the faces in a copy whose sides are in range, turned so that faces of this angle are upright there."""
    height, width = image.shape[:2]
    scale = min(max(SHORTEST / min(height, width), 1.0), longest / max(height, width))
    copy = Image.fromarray(image).resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC
    )
    turned = np.asarray(copy.rotate(turn, Image.Resampling.BILINEAR, expand=True))
    missing = np.maximum(SHORTEST - np.array(turned.shape[:2]), 0)  # of what is a narrow strip
    turned_middle = np.array(turned.shape[1::-1]) / 2
    turned = np.pad(turned, ((0, missing[0]), (0, missing[1]), (0, 0)))
    # Lines of image, x, y, width, height, score, five x, five y: the eyes first, the left of the picture before.
    lines = np.asarray(network.detect_faces([turned], output_type="numpy"), np.float64).reshape(-1, 16)
    middle, factor = np.array([width, height]) / 2, np.array(copy.size) / [width, height]
    return [_placed(line, turn, turned_middle, middle, factor) for line in lines]


def _placed(line: Floats, turn: float, turned_middle: Floats, middle: Floats, factor: Floats) -> Seen:
    """Return a face of MTCNN's ``line`` in the photo whose ``middle`` is ``turned_middle`` in the copy."""
    _, x, y, width, height, score, left, right = line[:8]
    lean = float(np.degrees(np.arctan2(line[12] - line[11], right - left)))
    across, down = np.array([x + width / 2, y + height / 2]) - turned_middle
    sine, cosine = np.sin(np.radians(turn)), np.cos(np.radians(turn))
    centre = np.array([across * cosine - down * sine, across * sine + down * cosine]) / factor + middle
    extent = np.array([width, height]) / factor
    box = np.rint(np.concatenate([centre - extent / 2, extent]) * STEPS) / STEPS
    angle = round((turn + lean + 180) % 360 - 180, 1)
    face = Face(tuple(box.tolist()), angle, round(float(score), 4))
    return Seen(face, turn, float(score * np.cos(np.radians(lean))))


def _distinct(seen: list[Seen]) -> list[Face]:
    """Return each face once, in the way that most copies agree on: of one copy, MTCNN errs on faces that lie."""
    votes = [sum(other.face.score or 0 for other in seen if _agree(one.face, other.face)) for one in seen]
    ranked = sorted(zip(votes, seen, strict=True), key=lambda pair: -pair[0] - pair[1].rank)
    kept: list[Face] = []
    for number, one in ranked:
        if (one.turn == 0 or number >= VOTES) and match(one.face, kept) is None:
            kept.append(one.face)
    return kept


def _agree(one: Face, other: Face) -> bool:
    between = abs((one.angle - other.angle + 180) % 360 - 180)
    return between <= AGREED and match(one, [other]) is not None

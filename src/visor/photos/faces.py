"""Which faces of a photo are meant, and their crops as files: what recognisers are trained on and shown."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from visor.core.types import Floats, ImageArray, MessageCallback
from visor.data.crops import CropBox, bounding_slices, crop, expand_box
from visor.evaluation.boxes import iou
from visor.models.mtcnn import MTCNN, load_mtcnn
from visor.photos.files import MIN_FACE_SIDE, PhotoFile, exists, output_path, read_photos, save_photo

SHORTEST, LONGEST = 128, 1024  # pixels of the sides of the photo in which faces are looked for; MTCNN needs 20 a face
LONGEST_TURNED = 512  # of the turned copies: there are many
ROTATIONS = (30, -30, 60, -60, 90, -90, 120, -120, 150, -150, 180)  # degrees; each way MTCNN finds what leans by 15
CONFIDENT_SCORE, UPRIGHT = (
    0.99,
    0.93,
)  # score, and score · cos(lean), from which no other turn would show the face better
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


class FaceCandidate(NamedTuple):
    """A face in a copy of the photo turned by ``turn`` degrees; ``rank`` is its score · cos(lean) there."""

    face: Face
    turn: float
    rank: float


FindFacesFn = Callable[[ImageArray], list[Face]]


def face_finder() -> FindFacesFn:
    """Load MTCNN; return uint8 (h, w, 3) → the faces, the largest first.

    A photo without a face, or with one that MTCNN is not sure of or that leans, is looked at in turned copies, too.
    """
    network = MTCNN(stages=load_mtcnn())

    def find(image: ImageArray) -> list[Face]:
        seen = _detect_rotated(network, image, 0, LONGEST)
        if not seen or any(one.rank < UPRIGHT or (one.face.score or 0) < CONFIDENT_SCORE for one in seen):
            for turn in ROTATIONS:
                seen += _detect_rotated(network, image, turn, LONGEST_TURNED)
        return sorted(_distinct(seen), key=lambda face: -face.box[2] * face.box[3])

    return find


def match_face(face: Face, others: Iterable[Face]) -> Face | None:
    """Return which of the other faces is where this one is, None if none is."""
    found = list(others)
    if not found:
        return None
    overlaps = iou(np.array([face.box]), np.array([other.box for other in found]))[0]
    return found[int(overlaps.argmax())] if overlaps.max() >= SAME else None


def _detect_rotated(network: MTCNN, image: ImageArray, turn: float, longest: int) -> list[FaceCandidate]:
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


def _placed(line: Floats, turn: float, turned_middle: Floats, middle: Floats, factor: Floats) -> FaceCandidate:
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
    return FaceCandidate(face, turn, float(score * np.cos(np.radians(lean))))


def _distinct(seen: list[FaceCandidate]) -> list[Face]:
    """Return each face once, in the way that most copies agree on: of one copy, MTCNN errs on faces that lie."""
    votes = [sum(other.face.score or 0 for other in seen if _agree(one.face, other.face)) for one in seen]
    ranked = sorted(zip(votes, seen, strict=True), key=lambda pair: -pair[0] - pair[1].rank)
    kept: list[Face] = []
    for number, one in ranked:
        if (one.turn == 0 or number >= VOTES) and match_face(one.face, kept) is None:
            kept.append(one.face)
    return kept


def _agree(one: Face, other: Face) -> bool:
    between = abs((one.angle - other.angle + 180) % 360 - 180)
    return between <= AGREED and match_face(one, [other]) is not None


NO_FACE = "no face is found in it; give its box by --box x,y,w,h, or choose another photo"


class FaceSelector(NamedTuple):
    """Which faces: the one in a box [x, y, w, h] given by hand, the ``number``-th largest, from 1, or all."""

    box: tuple[float, float, float, float] | None = None
    number: int | None = None


def crop_photos(
    find: FindFacesFn,
    photos: Sequence[PhotoFile],
    out: Path,
    shape: tuple[int, int],
    margin: float,
    choice: FaceSelector,
    force: bool,
    on_error: MessageCallback,
) -> Iterator[tuple[PhotoFile, Path]]:
    """Write the faces of each photo as PNG of ``shape`` (h, w), upright; yield where each of them is from and is.

    Folders are kept, so that LFW's layout stays LFW's; further faces of a photo have their number in the name. Where
    there already is such a file, ``refuse`` is told, unless ``force``; photos that are read are never overwritten.

    Raises:
        UserError: a PNG cannot be written.
    """
    taken = {photo.path.resolve() for photo in photos}
    for photo, image in read_photos(photos, "crop", on_error):
        for number, face in select_faces(find, photo, image, choice, on_error):
            path = output_path(photo, out)
            path = path if number == 1 or choice.number else path.with_name(f"{path.stem}_face{number}.png")
            if path.resolve() in taken:
                on_error(f"{path} is a photo that is read, or another face; rename {photo.path}")
                continue
            if exists(path) and not force:
                on_error(f"{path} exists; name another folder by --out, or overwrite it with --force")
                continue
            taken.add(path.resolve())
            frame = expand_box(face.box, margin, shape[0] / shape[1], face.angle)
            save_photo(crop(image, frame, shape), path)
            yield photo, path


def select_faces(
    find: FindFacesFn, photo: PhotoFile, image: ImageArray, choice: FaceSelector, on_error: MessageCallback
) -> list[tuple[int, Face]]:
    """Return the numbered faces; ``refuse`` is told if there are none."""
    there = [Face(choice.box)] if choice.box else find(image)
    faces = list(enumerate((face for face in there if is_inside(face, image)), start=1))
    if not faces and choice.box:
        size = f"{image.shape[1]}×{image.shape[0]}"
        on_error(
            f"{photo.path}: --box has less than {MIN_FACE_SIDE} pixels a side within its {size} pixels; correct the box"
        )
    elif not faces:
        on_error(f"{photo.path}: {NO_FACE}")
    elif choice.number is not None and choice.number > len(faces):
        on_error(f"{photo.path}: there is no --face {choice.number}, only {len(faces)}; choose one of these")
    return [pair for pair in faces if choice.number in (None, pair[0])]


def is_inside(face: Face, image: ImageArray) -> bool:
    """Return whether enough of a face lies inside its photo to be seen, and for what is done to it to be measured."""
    sides = bounding_slices(CropBox(*face.box, face.angle), image.shape)
    return min(side.stop - side.start for side in sides) >= MIN_FACE_SIDE

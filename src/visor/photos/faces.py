"""Faces of photos: find them at any angle, select those that are meant, and write their crops as files."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from visor.core.types import Box, Floats, ImageArray, MessageCallback
from visor.data.crops import CropBox, bounding_slices, crop
from visor.evaluation.boxes import iou, sort_by_area
from visor.models.alignment import face_frame, locate_landmarks
from visor.models.mtcnn import find_faces, load_mtcnn
from visor.models.recognisers.base import Template
from visor.photos.files import MIN_FACE_SIDE, PhotoFile, exists, output_path, read_photos, save_photo

# Pixels of the sides of the copy in which faces are detected (MTCNN needs 20 per face), and of rotated copies.
MIN_SIDE, MAX_SIDE, MAX_ROTATED_SIDE = 128, 1024, 512
ROTATIONS = (30, -30, 60, -60, 90, -90, 120, -120, 150, -150, 180)  # degrees; MTCNN tolerates 15 either way
CONFIDENT_SCORE = 0.99  # below this score, or this score · cos(lean), rotated copies are searched too
CONFIDENT_RANK = 0.93
MIN_VOTES = 1.8  # sum of scores, so two copies, for a face that is only found in rotated copies
MAX_ANGLE_DIFFERENCE = 20  # degrees between two detections of one face
SAME_FACE_IOU = 0.3
BOX_STEPS = 16  # per pixel; finer digits depend on the processor
NO_FACE = "no face found; pass --box x,y,w,h or choose another photo"


class Face(NamedTuple):
    """A face in a photo."""

    box: Box  # [x, y, w, h] in pixels of the photo, before the rotation about its centre
    angle: float = 0.0  # clockwise, in degrees
    score: float | None = None  # of MTCNN; None for a box drawn by hand
    landmarks: tuple[tuple[float, float], ...] | None = None  # five (x, y) in the photo, eyes first; None by hand


class FaceCandidate(NamedTuple):
    """A face that was found in a copy of the photo rotated by ``rotation``; ``rank`` is its score · cos(lean) there."""

    face: Face
    rotation: float
    rank: float


class FaceSelector(NamedTuple):
    """Which faces of a photo: the one in ``box``, the ``number``-th largest counted from 1, or all."""

    box: Box | None = None
    number: int | None = None


FindFacesFn = Callable[[ImageArray], list[Face]]


def face_finder() -> FindFacesFn:
    """Load MTCNN and return a function from a photo uint8 (h, w, 3) to its faces, the largest first.

    Rotated copies are searched where no face is found, or one with a low score or a lean.
    """
    load_mtcnn()

    def find(image: ImageArray) -> list[Face]:
        candidates = _detect_rotated(image, 0, MAX_SIDE)
        confident = (c.rank >= CONFIDENT_RANK and (c.face.score or 0) >= CONFIDENT_SCORE for c in candidates)
        if not candidates or not all(confident):
            for rotation in ROTATIONS:
                candidates += _detect_rotated(image, rotation, MAX_ROTATED_SIDE)
        faces = _merge_candidates(candidates)
        return [faces[row] for row in sort_by_area(face_boxes(faces))]

    return find


def face_boxes(faces: Sequence[Face]) -> Floats:
    """Return the boxes of faces, (k, 4)."""
    return np.array([face.box for face in faces], np.float64).reshape(-1, 4)


def match_face(face: Face, others: Sequence[Face]) -> Face | None:
    """Return which of the other faces overlaps this one most, by at least ``SAME_FACE_IOU``; None if none does."""
    overlaps = iou(face_boxes([face]), face_boxes(others))[0]
    return others[int(overlaps.argmax())] if overlaps.max(initial=0.0) >= SAME_FACE_IOU else None


def _detect_rotated(image: ImageArray, rotation: float, max_side: int) -> list[FaceCandidate]:
    """Return the faces of a resized copy in which faces of this angle are upright."""
    height, width = image.shape[:2]
    scale = min(max(MIN_SIDE / min(height, width), 1.0), max_side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    copy = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    rotated = np.asarray(copy.rotate(rotation, Image.Resampling.BILINEAR, expand=True))
    rotated_centre = np.array(rotated.shape[1::-1]) / 2
    padding = np.maximum(MIN_SIDE - np.array(rotated.shape[:2]), 0)  # of a narrow strip
    rotated = np.pad(rotated, ((0, padding[0]), (0, padding[1]), (0, 0)))
    found = find_faces([rotated])
    centre, scales = np.array([width, height]) / 2, np.array(copy.size) / [width, height]
    return [
        _to_photo(box, score, landmarks, rotation, rotated_centre, centre, scales)
        for box, score, landmarks in zip(found.boxes, found.scores, found.landmarks, strict=True)
    ]


def _to_photo(
    box: Floats,
    score: float,
    landmarks: Floats,
    rotation: float,
    rotated_centre: Floats,
    centre: Floats,
    scales: Floats,
) -> FaceCandidate:
    """Map a face from a rotated copy with ``rotated_centre`` to the photo with ``centre``."""
    x, y, width, height = box
    (left, left_y), (right, right_y) = landmarks[:2]  # eyes
    lean = float(np.degrees(np.arctan2(right_y - left_y, right - left)))
    across, down = np.transpose([[x + width / 2, y + height / 2], *landmarks] - rotated_centre)
    sine, cosine = np.sin(np.radians(rotation)), np.cos(np.radians(rotation))
    moved = np.stack([across * cosine - down * sine, across * sine + down * cosine], axis=1) / scales + centre
    middle, points = moved[0], np.rint(moved[1:] * BOX_STEPS) / BOX_STEPS
    sides = np.array([width, height]) / scales
    box = np.rint(np.concatenate([middle - sides / 2, sides]) * BOX_STEPS) / BOX_STEPS
    angle = round((rotation + lean + 180) % 360 - 180, 1)
    face = Face(tuple(box.tolist()), angle, round(float(score), 4), tuple(map(tuple, points.tolist())))
    return FaceCandidate(face, rotation, float(score * np.cos(np.radians(lean))))


def _merge_candidates(candidates: list[FaceCandidate]) -> list[Face]:
    """Return each face once, at the angle that most copies agree on: in a single copy MTCNN errs on lying faces."""
    votes = [sum(b.face.score or 0 for b in candidates if _agree(a.face, b.face)) for a in candidates]
    kept: list[Face] = []
    for vote, candidate in sorted(zip(votes, candidates, strict=True), key=lambda pair: -pair[0] - pair[1].rank):
        if (candidate.rotation == 0 or vote >= MIN_VOTES) and match_face(candidate.face, kept) is None:
            kept.append(candidate.face)
    return kept


def _agree(a: Face, b: Face) -> bool:
    difference = abs((a.angle - b.angle + 180) % 360 - 180)
    return difference <= MAX_ANGLE_DIFFERENCE and match_face(a, [b]) is not None


def crop_photos(
    find: FindFacesFn,
    photos: Sequence[PhotoFile],
    out: Path,
    shape: tuple[int, int],
    margin: float,
    selector: FaceSelector,
    force: bool,
    on_error: MessageCallback,
    template: Template | None = None,
) -> Iterator[tuple[PhotoFile, Path]]:
    """Write the faces of each photo as upright PNG of ``shape`` (h, w); yield each photo and file written.

    Faces are aligned to the template if there is one and their landmarks are found; the others have the margin.
    Folders are kept, such as LFW's layout; further faces of a photo have their number in the file name. Existing files
    are reported to ``on_error`` unless ``force`` is set; input photos are never overwritten.

    Raises:
        UserError: A PNG cannot be written.
    """
    taken = {photo.path.resolve() for photo in photos}
    for photo, image in read_photos(photos, "crop", on_error):
        for number, face in select_faces(find, photo, image, selector, on_error):
            path = output_path(photo, out)
            path = path if number == 1 or selector.number else path.with_name(f"{path.stem}_face{number}.png")
            if path.resolve() in taken:
                on_error(f"{path} is an input photo or another face; rename {photo.path}")
                continue
            if exists(path) and not force:
                on_error(f"{path} exists; pass another folder with --out, or overwrite it with --force")
                continue
            taken.add(path.resolve())
            landmarks = face.landmarks or (locate_landmarks(image, face.box) if template else None)
            save_photo(crop(image, face_frame(face.box, landmarks, template, shape, margin, face.angle), shape), path)
            yield photo, path


def select_faces(
    find: FindFacesFn, photo: PhotoFile, image: ImageArray, selector: FaceSelector, on_error: MessageCallback
) -> list[tuple[int, Face]]:
    """Return the selected faces with their numbers; if there is none, ``on_error`` gets the reason."""
    detected = [Face(selector.box)] if selector.box else find(image)
    faces = list(enumerate((face for face in detected if is_inside(face, image)), start=1))
    if not faces and selector.box:
        size = f"{image.shape[1]}×{image.shape[0]}"
        on_error(f"{photo.path}: --box has less than {MIN_FACE_SIDE} pixels a side within {size} pixels; correct it")
    elif not faces:
        on_error(f"{photo.path}: {NO_FACE}")
    elif selector.number is not None and selector.number > len(faces):
        on_error(f"{photo.path}: there is no --face {selector.number}, only {len(faces)}; choose one of these")
    return [pair for pair in faces if selector.number in (None, pair[0])]


def is_inside(face: Face, image: ImageArray) -> bool:
    """Return whether at least ``MIN_FACE_SIDE`` pixels of each side of a face lie inside the photo."""
    sides = bounding_slices(CropBox(*face.box, face.angle), image.shape)
    return min(side.stop - side.start for side in sides) >= MIN_FACE_SIDE

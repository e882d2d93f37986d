"""All networks of the app's process, the attacks that are compiled for them, and the faces of an uploaded photo."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from visor.app import settings
from visor.core import params
from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.data.crops import CropBox, bounding_slices, expand_box
from visor.evaluation.boxes import sort_by_area
from visor.models import training
from visor.models.detectors import TRAINABLE, Detections, Detector
from visor.models.recognisers import RECOGNISERS
from visor.photos import networks
from visor.photos.faces import Face, FindFacesFn, face_boxes, face_finder, is_inside, match_face
from visor.photos.files import MIN_FACE_SIDE
from visor.photos.hide import detect_in_photo
from visor.photos.identify import PhotoRecogniser, photo_recogniser

TARGET_DETECTOR = "mtcnn"  # it detects a face alike whatever is around it
TARGET_OPTIONS = ("stage_threshold=0.05", "proposals=24", "nms_iou=0.9")  # of MTCNN's module, for the attack
HELD_OUT_DETECTORS = ("cascade", "faster_rcnn", "ssd")  # no attack uses them
# The cascade takes seconds for a photo: it sees each face with this margin, in at most so many pixels.
CASCADE_MARGIN, CASCADE_MAX_SIDE = 0.5, 160


class NetworkOptions(NamedTuple):
    """Recogniser to attack, published ``weights`` (file or URL) for it, and number of threads."""

    recogniser: str = "facenet"
    weights: str | None = None
    sha256: str | None = None
    threads: int = 2
    seed: int = 1

    @property
    def published(self) -> str | None:
        """The name of the recogniser to attack if it has published weights."""
        return Path(self.recogniser).name if self.weights or self.recogniser not in RECOGNISERS else None


class Networks(NamedTuple):
    """All networks of a process."""

    options: NetworkOptions
    find: FindFacesFn
    detectors: dict[str, Detector]
    recognisers: dict[str, PhotoRecogniser]
    thresholds: dict[str, float]  # cosine similarity from which two faces count as one person, for each recogniser
    untrained: list[str]  # networks that the pipeline could train and has not


def load_networks(options: NetworkOptions) -> Networks:
    """Start TensorFlow and load every detector and recogniser that is available.

    Raises:
        UserError: The recogniser to attack is not available.
    """
    training.configure_tensorflow(params.ComputeParams(threads=options.threads, deterministic=True), options.seed)
    detectors = {TARGET_DETECTOR: networks.open_detector(TARGET_DETECTOR, None, TARGET_OPTIONS)}
    find, untrained = face_finder(), []
    for name in HELD_OUT_DETECTORS:
        if (networks.DETECTOR_FOLDER / name).is_dir() or name not in TRAINABLE:
            detectors[name] = networks.open_detector(name, None, [])
        else:
            untrained.append(name)
    recognisers, thresholds = {}, {}
    for name in sorted({*RECOGNISERS, options.recogniser}):
        weights = options.weights if name == options.recogniser else None
        if weights or name == options.recogniser or (networks.RECOGNISER_FOLDER / name).is_dir():
            network = networks.open_recogniser(name, weights, options.sha256 if weights else None, None, [])
            recognisers[name] = photo_recogniser(network, find, networks.crop_margin(name))
            thresholds[name] = networks.verification_threshold(name, weights is not None)[0]
        else:
            untrained.append(name)
    return Networks(options, find, detectors, recognisers, thresholds, untrained)


def detect_faces(loaded: Networks, name: str, image: ImageArray, faces: Sequence[Face]) -> Detections:
    """Return the detections of a detector in a photo uint8 (h, w, 3); the cascade searches around the faces only."""
    detector = loaded.detectors[name]
    if name != "cascade":
        return detect_in_photo(detector, image)
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    boxes, scores = zip(empty, *(_detect_around(detector, image, face) for face in faces), strict=True)
    return Detections(np.concatenate(boxes), np.concatenate(scores))


def _detect_around(detector: Detector, image: ImageArray, face: Face) -> Detections:
    rows, columns = bounding_slices(expand_box(face.box, CASCADE_MARGIN, 1.0), image.shape)
    part = Image.fromarray(image[rows, columns])
    full_side = max(part.size)
    part.thumbnail((CASCADE_MAX_SIDE, CASCADE_MAX_SIDE), Image.Resampling.BOX)
    boxes, scores = detect_in_photo(detector, np.asarray(part))
    placed = boxes * (full_side / max(part.size)) + [columns.start, rows.start, 0, 0]
    return Detections(placed.astype(np.float32), scores)


def find_faces(loaded: Networks, image: ImageArray) -> list[Face]:
    """Return the faces of a photo uint8 (h, w, 3), the largest first, at most ``settings.FACES``.

    They are those of the face finder, at any angle, and what the target detector finds besides.
    """
    faces = loaded.find(image)
    found = detect_faces(loaded, TARGET_DETECTOR, image, [])
    for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
        face = Face(tuple(box), 0.0, round(score, 4))
        if match_face(face, faces) is None:
            faces.append(face)
    inside = [face for face in faces if is_inside(face, image)]
    return [inside[row] for row in sort_by_area(face_boxes(inside))[: settings.FACES]]


def face_from_box(box: Sequence[float], shape: Sequence[int]) -> Face:
    """Return the face of a box [x, y, w, h] drawn by hand, cut to a photo of ``shape`` (h, w, …); its score is None.

    Raises:
        UserError: Less than ``MIN_FACE_SIDE`` pixels of a side lie in the photo.
    """
    rows, columns = bounding_slices(CropBox(*box), shape)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    if min(width, height) < MIN_FACE_SIDE:
        raise UserError(f"The box has less than {MIN_FACE_SIDE} pixels a side within the photo; draw a larger one")
    return Face((float(columns.start), float(rows.start), float(width), float(height)))

"""Faces in an uploaded photo: found, or drawn by hand."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from visor.app import settings
from visor.core import params
from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.data.crops import CropBox, bounding_slices, expand_box
from visor.evaluation.boxes import iou
from visor.models import training
from visor.models.detectors import TRAINABLE, Detections, Detector
from visor.models.recognisers import RECOGNISERS
from visor.photos import networks
from visor.photos.evade import EvadeSettings, EvasionAttack, compile_evasion_attack
from visor.photos.faces import Face, FindFacesFn, face_finder, is_inside, match_face
from visor.photos.faces import Face as Spot
from visor.photos.files import MIN_FACE_SIDE
from visor.photos.hide import LocalAttack, compile_local_attack, detect_in_photo
from visor.photos.identify import PhotoRecogniser, photo_recogniser

TARGET_DETECTOR = "mtcnn"  # the one that sees a face the same whatever is around it
ATTACK = ("stage_threshold=0.05", "proposals=24", "nms_iou=0.9")  # of MTCNN's module: what a search looks at
HELD_OUT_DETECTORS = ("cascade", "faster_rcnn", "ssd")  # detectors that no search uses
CASCADE_MARGIN, CASCADE_MAX_SIDE = (
    0.5,
    160,
)  # where the cascade looks: a face enlarged at each end, in at most so many pixels
CROP_MARGIN = 0.2  # of a face's sides, cropped with it: what published FaceNets and the trained networks are used to
T = TypeVar("T")


class NetworkOptions(NamedTuple):
    """Which recogniser attacks use, published ``weights`` (file or URL) for it, and threads."""

    recogniser: str = "facenet"
    weights: str | None = None
    sha256: str | None = None
    threads: int = 2
    seed: int = 1


@dataclass(frozen=True)
class Networks:
    """All networks of a process, and the searches that were compiled for them.

    ``thresholds``: of each recogniser, the similarity from which two faces are one person. ``missing``: the names of
    those that this pipeline could train and has not.
    """

    options: NetworkOptions
    find: FindFacesFn
    detectors: dict[str, Detector]
    recognisers: dict[str, PhotoRecogniser]
    thresholds: dict[str, float]
    untrained: list[str]
    compiled: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def target_recogniser(self) -> PhotoRecogniser:
        """The recogniser that attacks use."""
        return self.recognisers[self.options.recogniser]

    def hiding_attack(self, eps: int, iterations: int) -> LocalAttack:
        """Return the search that hides faces from the detector, by a bound of ``eps`` of 255; compiled once."""
        detector, seed = self.detectors[TARGET_DETECTOR], self.options.seed
        return self._compile_once(
            ("hide", eps, iterations), lambda: compile_local_attack(detector, eps / 255, iterations, seed)
        )

    def dodging_attack(self, eps: int, iterations: int) -> EvasionAttack:
        """Return the search that leads a face away from itself for the recogniser; compiled once."""
        settings = EvadeSettings(eps / 255, iterations, "robust", self.options.seed)
        network = self.target_recogniser.recogniser
        return self._compile_once(("fool", eps, iterations), lambda: compile_evasion_attack(network, "dodge", settings))

    def _compile_once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        with self.lock:
            if key not in self.compiled:
                self.compiled[key] = make()
            found: T = self.compiled[key]
        return found


def load_networks(options: NetworkOptions) -> Networks:
    """Start TensorFlow and load every detector and recogniser that there is.

    Raises:
        UserError: the recogniser that attacks use cannot be had.
    """
    training.configure_tensorflow(params.ComputeParams(threads=options.threads, deterministic=True), options.seed)
    detectors = {TARGET_DETECTOR: networks.open_detector(TARGET_DETECTOR, None, ATTACK)}
    find, missing = face_finder(), []
    for name in HELD_OUT_DETECTORS:
        if (networks.DETECTOR_FOLDER / name).is_dir() or name not in TRAINABLE:
            detectors[name] = networks.open_detector(name, None, [])
        else:
            missing.append(name)
    recognisers, thresholds = {}, {}
    for name in sorted(RECOGNISERS):
        weights = options.weights if name == options.recogniser else None
        if weights or name == options.recogniser or (networks.RECOGNISER_FOLDER / name).is_dir():
            known = networks.open_recogniser(name, weights, options.sha256 if weights else None, None, [])
            recognisers[name] = photo_recogniser(known, find, CROP_MARGIN)
            thresholds[name] = networks.verification_threshold(name, weights is not None)[0]
        else:
            missing.append(name)
    return Networks(options, find, detectors, recognisers, thresholds, missing)


def detect_faces(eyes: Networks, name: str, image: ImageArray, faces: Sequence[Face]) -> Detections:
    """Return what a detector is sure of in a photo uint8 (h, w, 3).

    The cascade, which takes seconds for a photo, looks only around the faces.
    """
    detector = eyes.detectors[name]
    if name != "cascade":
        return detect_in_photo(detector, image)
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    boxes, scores = zip(none, *(_look_around(detector, image, face) for face in faces), strict=True)
    return Detections(np.concatenate(boxes), np.concatenate(scores))


def best_overlapping_scores(found: Detections, faces: Sequence[Face], least: float) -> list[float | None]:
    """Return the best score of a box that overlaps each face by an IoU of ``least``; None: there is no such box."""
    overlaps = iou(np.array([face.box for face in faces]), found.boxes)
    return [float(found.scores[row >= least].max()) if (row >= least).any() else None for row in overlaps]


def _look_around(detector: Detector, image: ImageArray, face: Face) -> Detections:
    rows, columns = bounding_slices(expand_box(face.box, CASCADE_MARGIN, 1.0), image.shape)
    part = Image.fromarray(image[rows, columns])
    whole = max(part.size)
    part.thumbnail((CASCADE_MAX_SIDE, CASCADE_MAX_SIDE), Image.Resampling.BOX)
    scale = whole / max(part.size)
    boxes, scores = detect_in_photo(detector, np.asarray(part))
    placed = boxes * scale + [columns.start, rows.start, 0, 0]
    return Detections(placed.astype(np.float32), scores)


__all__ = ["Spot", "face_from_box", "find_faces"]


def find_faces(eyes: Networks, image: ImageArray) -> list[Spot]:
    """Return the faces of a photo uint8 (h, w, 3), the largest first, at most ``limits.FACES``.

    They are what the finder sees, whichever way up, and what else the detector sees that attacks use. Boxes [x, y, w,
    h] in pixels of the photo, ``angle`` in degrees, ``score`` in [0, 1].
    """
    spots = eyes.find(image)
    seen = detect_faces(eyes, TARGET_DETECTOR, image, [])
    for box, score in zip(seen.boxes.tolist(), seen.scores.tolist(), strict=True):
        spot = Spot(tuple(box), 0.0, round(score, 4))
        if match_face(spot, spots) is None:
            spots.append(spot)
    inside = [spot for spot in spots if is_inside(spot, image)]
    return sorted(inside, key=lambda spot: -spot.box[2] * spot.box[3])[: settings.FACES]


def face_from_box(box: Sequence[float], shape: Sequence[int]) -> Spot:
    """Return a box [x, y, w, h] that somebody drew, cut to a photo of ``shape`` (h, w, …); its score is None.

    Raises:
        UserError: less than ``photos.LEAST`` pixels a side of it lie in the photo.
    """
    x, y, width, height = box
    rows, columns = bounding_slices(CropBox(x, y, width, height), shape)
    sides = columns.stop - columns.start, rows.stop - rows.start
    if min(sides) < MIN_FACE_SIDE:
        raise UserError(f"The box has less than {MIN_FACE_SIDE} pixels a side within the photo; draw a larger one")
    return Spot((float(columns.start), float(rows.start), float(sides[0]), float(sides[1])))

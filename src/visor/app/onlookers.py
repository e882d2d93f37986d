"""Everybody who looks at a photo: detectors and recognisers, those that an attack uses and those that it does not."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from visor import params, training
from visor.boxes import iou
from visor.crops import enlarge, window
from visor.detectors import TRAINABLE, Detector, Found
from visor.faces import Images
from visor.protection import choice
from visor.protection.face_finding import Face, Find, finder
from visor.protection.fooling import Fool, Settings, compile_fool
from visor.protection.hiding import look
from visor.protection.near_faces import Near, compile_near
from visor.protection.recognising import Onlooker, onlooker
from visor.recognisers import RECOGNISERS

ATTACKED = "mtcnn"  # the one that sees a face the same whatever is around it
ATTACK = ("gate=0.05", "proposals=24", "overlap=0.9")  # of MTCNN's module: what a search looks at
STRANGERS = ("cascade", "faster_rcnn", "ssd")  # detectors that no search uses
SURROUNDINGS, CLOSE = 0.5, 160  # where the cascade looks: a face enlarged at each end, in at most so many pixels
CROP_MARGIN = 0.2  # of a face's sides, cropped with it: what published FaceNets and the trained networks are used to
T = TypeVar("T")


class Options(NamedTuple):
    """Which recogniser attacks use, published ``weights`` (file or URL) for it, and threads."""

    recogniser: str = "facenet"
    weights: str | None = None
    sha256: str | None = None
    threads: int = 2
    seed: int = 1


@dataclass(frozen=True)
class Eyes:
    """All networks of a process, and the searches that were compiled for them.

    ``thresholds``: of each recogniser, the similarity from which two faces are one person. ``missing``: the names of
    those that this pipeline could train and has not.
    """

    options: Options
    find: Find
    detectors: dict[str, Detector]
    recognisers: dict[str, Onlooker]
    thresholds: dict[str, float]
    missing: list[str]
    compiled: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def attacked(self) -> Onlooker:
        """The recogniser that attacks use."""
        return self.recognisers[self.options.recogniser]

    def hider(self, eps: int, iterations: int) -> Near:
        """Return the search that hides faces from the detector, by a bound of ``eps`` of 255; compiled once."""
        detector, seed = self.detectors[ATTACKED], self.options.seed
        return self._once(("hide", eps, iterations), lambda: compile_near(detector, eps / 255, iterations, seed))

    def fooler(self, eps: int, iterations: int) -> Fool:
        """Return the search that leads a face away from itself for the recogniser; compiled once."""
        settings = Settings(eps / 255, iterations, "robust", self.options.seed)
        network = self.attacked.recogniser
        return self._once(("fool", eps, iterations), lambda: compile_fool(network, "dodge", settings))

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        with self.lock:
            if key not in self.compiled:
                self.compiled[key] = make()
            found: T = self.compiled[key]
        return found


def open_eyes(options: Options) -> Eyes:
    """Start TensorFlow and load every detector and recogniser that there is.

    Raises:
        UserError: the recogniser that attacks use cannot be had.
    """
    training.configure(params.Compute(threads=options.threads, deterministic=True), options.seed)
    detectors = {ATTACKED: choice.open_detector(ATTACKED, None, ATTACK)}
    find, missing = finder(), []
    for name in STRANGERS:
        if (choice.TRAINED / name).is_dir() or name not in TRAINABLE:
            detectors[name] = choice.open_detector(name, None, [])
        else:
            missing.append(name)
    recognisers, thresholds = {}, {}
    for name in sorted(RECOGNISERS):
        weights = options.weights if name == options.recogniser else None
        if weights or name == options.recogniser or (choice.TRAINED_RECOGNISER / name).is_dir():
            known = choice.open_recogniser(name, weights, options.sha256 if weights else None, None, [])
            recognisers[name] = onlooker(known, find, CROP_MARGIN)
            thresholds[name] = choice.same_person(name, weights is not None)[0]
        else:
            missing.append(name)
    return Eyes(options, find, detectors, recognisers, thresholds, missing)


def look_at(eyes: Eyes, name: str, image: Images, faces: Sequence[Face]) -> Found:
    """Return what a detector is sure of in a photo uint8 (h, w, 3).

    The cascade, which takes seconds for a photo, looks only around the faces.
    """
    detector = eyes.detectors[name]
    if name != "cascade":
        return look(detector, image)
    none = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    boxes, scores = zip(none, *(_look_around(detector, image, face) for face in faces), strict=True)
    return Found(np.concatenate(boxes), np.concatenate(scores))


def best_scores(found: Found, faces: Sequence[Face], least: float) -> list[float | None]:
    """Return the best score of a box that overlaps each face by an IoU of ``least``; None: there is no such box."""
    overlaps = iou(np.array([face.box for face in faces]), found.boxes)
    return [float(found.scores[row >= least].max()) if (row >= least).any() else None for row in overlaps]


def _look_around(detector: Detector, image: Images, face: Face) -> Found:
    rows, columns = window(enlarge(face.box, SURROUNDINGS, 1.0), image.shape)
    part = Image.fromarray(image[rows, columns])
    whole = max(part.size)
    part.thumbnail((CLOSE, CLOSE), Image.Resampling.BOX)
    scale = whole / max(part.size)
    boxes, scores = look(detector, np.asarray(part))
    placed = boxes * scale + [columns.start, rows.start, 0, 0]
    return Found(placed.astype(np.float32), scores)

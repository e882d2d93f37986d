"""Protect one photo: attack the networks, measure the outcome on the PNG to be downloaded, return the result."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from visor.app.networks import TARGET_DETECTOR, Networks, detect_faces, face_from_box
from visor.app.settings import DEFAULT_LEVEL, LEVELS, ProtectionLevel
from visor.app.uploads import Upload
from visor.core.types import ImageArray, ProgressCallback
from visor.data.crops import CropBox, bounding_slices
from visor.data.images import decode_image, encode_png
from visor.evaluation.image_distances import image_distances
from visor.models.detectors import Detections
from visor.photos.evade import EvadeSettings, evade_faces
from visor.photos.faces import Face, face_boxes, match_face
from visor.photos.hide import HideSettings, hide_faces
from visor.photos.identify import RecognisedFace, recognise_faces
from visor.photos.outcome import AttackGoal, NetworkOutcome, detector_outcomes, recogniser_outcome
from visor.photos.restarts import RegionPerturbation, apply_perturbations

EPS_DIVISOR = 3  # of the bound, for recognisers when faces are hidden too; with half of it, some faces are still found
SSIM_STRIP_PIXELS = 1 << 20  # pixels that are compared at once: SSIM in floats takes some 200 bytes for each


class JobCancelled(Exception):  # noqa: N818 - Control flow, not an error; hence no Error suffix.
    """The job was cancelled."""


class Distance(NamedTuple):
    """Distance of two photos: L∞ in levels of 255, mean SSIM, PSNR in dB (None if nothing changed)."""

    linf: int
    ssim: float
    psnr: float | None


class ProtectionResult(NamedTuple):
    """Result of a job."""

    name: str
    before: ImageArray
    after: ImageArray  # pixels of ``png``
    png: bytes
    faces: list[Face]
    outcomes: list[NetworkOutcome]
    distances: list[Distance]  # within the box of each face
    whole: Distance
    seconds: float
    eps: int  # L∞ bound in levels of 255


class PhotoViews(NamedTuple):
    """Detections of each detector in a photo, where each face is, and the faces as each recogniser sees them."""

    detections: dict[str, Detections]
    places: list[Face]
    recognised: dict[str, list[RecognisedFace]]


def protect(
    networks: Networks,
    upload: Upload,
    faces: Sequence[Face],
    level: ProtectionLevel,
    target: str,
    report_progress: ProgressCallback,
    is_cancelled: Callable[[], bool],
) -> ProtectionResult:
    """Hide the selected faces of a photo from a detector, evade a recogniser, or both (``target`` of ``TARGETS``).

    ``is_cancelled`` is queried between steps.

    Raises:
        JobCancelled: ``is_cancelled`` returned true.
    """

    def check_progress(share: float, message: str) -> None:
        if is_cancelled():
            raise JobCancelled
        report_progress(share, message)

    begin, clean = time.monotonic(), upload.image
    check_progress(0.0, "Inspecting the photo")
    before = inspect_photo(networks, clean, faces, faces)
    changed = attack_photo(
        networks, clean, before.places, level, target, lambda share, message: check_progress(0.1 + 0.7 * share, message)
    )
    check_progress(0.8, "Inspecting the protected photo")
    png = encode_png(changed)
    after = decode_image(png, upload.name)
    outcomes = compare_views(networks, before, inspect_photo(networks, after, faces, before.places), target)
    check_progress(0.95, "Measuring the change")
    slices = [bounding_slices(CropBox(*face.box), clean.shape) for face in faces]
    distances = [photo_distance(clean[part], after[part]) for part in slices]
    whole = photo_distance(clean, after)
    check_progress(1.0, "Done")
    seconds = time.monotonic() - begin
    return ProtectionResult(upload.name, clean, after, png, list(faces), outcomes, distances, whole, seconds, level.eps)


def warm_up(networks: Networks) -> None:
    """Protect a grey photo, so that the first job of a user does not wait for compilation."""
    image = np.full((512, 512, 3), 128, np.uint8)
    face = face_from_box([192.0, 192.0, 128.0, 128.0], image.shape)
    level = LEVELS[DEFAULT_LEVEL]
    protect(networks, Upload("", image), [face], level, "both", lambda share, message: None, lambda: False)


def attack_photo(
    networks: Networks,
    image: ImageArray,
    faces: Sequence[Face],
    level: ProtectionLevel,
    target: str,
    report_progress: ProgressCallback,
) -> ImageArray:
    """Return a photo uint8 (h, w, 3) perturbed around the faces, each value within ``level.eps``.

    For both targets the recogniser is evaded first, by a part of the bound; the hiding perturbation is added with the
    whole bound, and their sum is clipped to it. Evasion that is robust to transforms survives that.
    """
    options, halves = networks.options, 2 if target == "both" else 1
    changes: list[RegionPerturbation] = []

    def report(share: float, message: str) -> None:
        report_progress((bool(changes) + share) / halves, message)  # With changes, the first half is done.

    if target != "detectors":
        eps = max(1, level.eps // EPS_DIVISOR) if target == "both" else level.eps
        evade_settings = EvadeSettings(eps / 255, level.iterations, seed=options.seed, attempts=level.attempts)
        recogniser, threshold = networks.recognisers[options.recogniser], networks.thresholds[options.recogniser]
        recognised = recognise_faces(recogniser, image, faces)
        goals = [AttackGoal("dodge", face.embedding, threshold) for face in recognised]
        changes = evade_faces(recogniser, image, recognised, goals, evade_settings, False, report)
    if target != "recognition":
        hide_settings = HideSettings(
            level.eps / 255, level.iterations, attempts=level.attempts, seed=options.seed, region="face"
        )
        changes = hide_faces(
            networks.detectors[TARGET_DETECTOR], image, face_boxes(faces), hide_settings, changes, report
        )
    return apply_perturbations(image, changes, level.eps / 255)


def inspect_photo(networks: Networks, image: ImageArray, faces: Sequence[Face], places: Sequence[Face]) -> PhotoViews:
    """Run all networks on the faces of a photo uint8 (h, w, 3).

    Recognisers get the crops where the target detector finds the faces, before and after alike, or a crop that moved
    would pass for a success; where it finds none, ``places``.
    """
    detections = {name: detect_faces(networks, name, image, faces) for name in networks.detectors}
    detected = [Face(tuple(box)) for box in detections[TARGET_DETECTOR].boxes.tolist()]
    current = [place._replace(box=(match_face(place, detected) or place).box) for place in places]
    recognised = {name: recognise_faces(network, image, current) for name, network in networks.recognisers.items()}
    return PhotoViews(detections, current, recognised)


def compare_views(networks: Networks, before: PhotoViews, after: PhotoViews, target: str) -> list[NetworkOutcome]:
    """Return the outcome of each face for all networks, detectors first.

    A recogniser has no result for a box drawn by hand in which no detector found a face before.
    """
    outcomes, boxes = [], face_boxes(before.places)
    for name, detector in networks.detectors.items():
        attacked = name == TARGET_DETECTOR and target != "recognition"
        detections = before.detections[name], after.detections[name]
        outcomes += detector_outcomes(detector, boxes, *detections, attacked)
    detected = {outcome.face for outcome in outcomes if outcome.before}
    for name, threshold in networks.thresholds.items():
        attacked = name == networks.options.recogniser and target != "detectors"
        for number, (face, changed) in enumerate(zip(before.recognised[name], after.recognised[name], strict=True)):
            goal = AttackGoal("dodge", face.embedding, threshold)
            outcome = recogniser_outcome(number, name, goal, face, changed, attacked=attacked)
            if before.places[number].score is None and number not in detected:
                outcome = outcome._replace(before=None, after=None, score_before=None, score_after=None)
            outcomes.append(outcome)
    return outcomes


def photo_distance(clean: ImageArray, changed: ImageArray) -> Distance:
    """Return the distance of two photos uint8 (h, w, 3); SSIM is the mean over strips of whole rows."""
    height, width = clean.shape[:2]
    strips = max(1, round(height * width / SSIM_STRIP_PIXELS))
    edges = np.linspace(0, height, strips + 1).astype(int)
    rows = np.concatenate(
        [image_distances(clean[None, top:end], changed[None, top:end]) for top, end in pairwise(edges)]
    )
    _, _, squared, similarity = np.average(rows, axis=0, weights=np.diff(edges))
    psnr = float(-10 * np.log10(squared)) if squared else None
    return Distance(round(float(rows[:, 0].max()) * 255), float(similarity), psnr)

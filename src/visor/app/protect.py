"""One photo, protected: the search for a change, and what everybody sees in the PNG that will be downloaded."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from visor.app.downloads import encode_png
from visor.app.networks import TARGET_DETECTOR, Networks, Spot, best_overlapping_scores, detect_faces, face_from_box
from visor.app.settings import DEFAULT_LEVEL, LEVELS, ProtectionLevel
from visor.app.uploads import Upload
from visor.core.types import Floats, ImageArray, ProgressCallback
from visor.data.crops import CropBox, bounding_slices
from visor.data.images import decode_image
from visor.evaluation.boxes import MATCH_IOU, TOUCH_IOU
from visor.evaluation.image_distances import image_distances
from visor.models.detectors import Detections
from visor.photos.evade import RegionPerturbation, apply_perturbations
from visor.photos.faces import match_face
from visor.photos.hide import BATCH, attack_frame
from visor.photos.identify import recognise_faces
from visor.photos.restarts import best_of_restarts

EPS_DIVISOR = 3  # of the bound, against recognisers; with half of it, some faces are still found


def attack_photo(
    eyes: Networks,
    image: ImageArray,
    spots: Sequence[Spot],
    level: ProtectionLevel,
    target: str,
    pace: ProgressCallback,
) -> ImageArray:
    """Return a photo uint8 (h, w, 3) changed around the chosen faces, no value by more than ``level.eps``.

    For both targets the recogniser comes first, with a part of the bound; what hides is added with the whole bound, and
    where the two exceed it they are cut to it. A recogniser that is led astray robustly bears that.

    pace: is told the share that is done, in [0, 1], and what is done next, between steps; what it raises ends it.
    """
    if target == "detectors":
        changes = hide_faces(eyes, image, [], spots, level, pace)
    elif target == "recognition":
        changes = evade_recognition(eyes, image, spots, level, pace)
    else:
        part = level._replace(eps=max(1, level.eps // EPS_DIVISOR))
        first = evade_recognition(eyes, image, spots, part, lambda share, words: pace(share / 2, words))
        changes = hide_faces(eyes, image, first, spots, level, lambda share, words: pace((1 + share) / 2, words))
    return apply_perturbations(image, changes, level.eps / 255)


def hide_faces(
    eyes: Networks,
    image: ImageArray,
    made: list[RegionPerturbation],
    spots: Sequence[Spot],
    level: ProtectionLevel,
    pace: ProgressCallback,
) -> list[RegionPerturbation]:
    """Return changes, the ``made`` ones first, after which the detector finds no box on the chosen faces.

    If there are none in ``level.attempts``, they are the best that were found.
    """
    near, frames = eyes.hiding_attack(level.eps, level.iterations), [attack_frame(spot.box) for spot in spots]
    start = apply_perturbations(image, made, level.eps / 255)

    def attempt_fn(faces: list[int], attempt: int) -> dict[int, RegionPerturbation]:
        changes: list[RegionPerturbation] = []
        for first in range(0, len(faces), BATCH):
            pace((attempt + first / len(faces)) / level.attempts, "Hiding faces from the detector")
            changes += near(start, [frames[face] for face in faces[first : first + BATCH]], attempt)
        return dict(zip(faces, changes, strict=True))

    def score_fn(changes: Sequence[RegionPerturbation]) -> list[float]:
        found = detect_faces(
            eyes, TARGET_DETECTOR, apply_perturbations(image, [*made, *changes], level.eps / 255), spots
        )
        return [np.inf if score is None else -score for score in best_overlapping_scores(found, spots, TOUCH_IOU)]

    return [*made, *best_of_restarts(len(spots), level.attempts, attempt_fn, score_fn)]


def evade_recognition(
    eyes: Networks, image: ImageArray, spots: Sequence[Spot], level: ProtectionLevel, pace: ProgressCallback
) -> list[RegionPerturbation]:
    """Return changes that make the recogniser take the chosen faces for others, or the best of ``level.attempts``."""
    fool, looker = eyes.dodging_attack(level.eps, level.iterations), eyes.target_recogniser
    known = recognise_faces(looker, image, spots)
    least = eyes.thresholds[eyes.options.recogniser]

    def attempt_fn(faces: list[int], attempt: int) -> dict[int, RegionPerturbation]:
        changes = {}
        for number, face in enumerate(faces):
            pace((attempt + number / len(faces)) / level.attempts, "Leading the recogniser astray")
            changes[face] = fool(image, known[face].frame, known[face].embedding, attempt)
        return changes

    def score_fn(changes: Sequence[RegionPerturbation]) -> list[float]:
        now = recognise_faces(looker, apply_perturbations(image, changes, level.eps / 255), spots)
        values = [float(a.embedding @ b.embedding) for a, b in zip(known, now, strict=True)]
        return [np.inf if value < least else -value for value in values]

    return best_of_restarts(len(spots), level.attempts, attempt_fn, score_fn)


ATTACKED_KINDS = {"detectors": ("detector",), "recognition": ("recogniser",), "both": ("detector", "recogniser")}


class NetworkOutcome(NamedTuple):
    """What an onlooker makes of a face, by its place in ``Protected.faces``, before and after.

    ``before`` and ``after``: a detector sees it, a recogniser takes it for the same person; None where nothing can be
    said: what a detector sees neither before nor after was not hidden from it, and what nobody sees a face in has no
    likeness. ``value``: the best score of a box on the face, the cosine similarity to the face as it was; it counts
    from ``threshold`` on. ``used``: the attack went by it.
    """

    face: int
    network: str
    kind: Literal["detector", "recogniser"]
    attacked: bool
    before: bool | None
    after: bool | None
    value_before: float | None
    value_after: float | None
    threshold: float


class PhotoViews(NamedTuple):
    """What detectors find in a photo, where each chosen face is, and the embedding (d,) each recogniser has of it."""

    found: dict[str, Detections]
    places: list[Spot]
    embeddings: dict[str, list[Floats]]


def inspect_photo(eyes: Networks, image: ImageArray, spots: Sequence[Spot], places: Sequence[Spot]) -> PhotoViews:
    """Return what everybody sees of the chosen faces in a photo uint8 (h, w, 3).

    Recognisers look where the attacked detector finds the faces, before as after, or a crop that moved would pass for
    a success; where it finds none, in ``places``.
    """
    found = {name: detect_faces(eyes, name, image, spots) for name in eyes.detectors}
    there = [Spot(tuple(box)) for box in found[TARGET_DETECTOR].boxes.tolist()]
    now = [place._replace(box=(match_face(place, there) or place).box) for place in places]
    return PhotoViews(
        found,
        now,
        {
            name: [known.embedding for known in recognise_faces(looker, image, now)]
            for name, looker in eyes.recognisers.items()
        },
    )


def compare_views(eyes: Networks, before: PhotoViews, after: PhotoViews, target: str) -> list[NetworkOutcome]:
    """Return the verdicts of all onlookers on each face where it was ``before``, detectors first.

    A detector sees a face where a box fits it (``boxes.FITS``), and if it did before, until none even touches it.
    Recognisers are asked of what the finder or a detector saw before: a wall that somebody framed is like nobody.
    """
    verdicts = []
    for number, place in enumerate(before.places):
        is_face = place.score is not None
        for name, detector in eyes.detectors.items():
            (first,) = best_overlapping_scores(before.found[name], [place], MATCH_IOU)
            (last,) = best_overlapping_scores(after.found[name], [place], MATCH_IOU if first is None else TOUCH_IOU)
            used = name == TARGET_DETECTOR and "detector" in ATTACKED_KINDS[target]
            seen = None if first is None and last is None else last is not None
            verdicts.append(
                NetworkOutcome(number, name, "detector", used, first is not None, seen, first, last, detector.threshold)
            )
            is_face = is_face or first is not None
        for name, threshold in eyes.thresholds.items():
            used = name == eyes.options.recogniser and "recogniser" in ATTACKED_KINDS[target]
            similarity = min(1.0, float(before.embeddings[name][number] @ after.embeddings[name][number]))
            one = NetworkOutcome(
                number, name, "recogniser", used, True, similarity >= threshold, 1.0, similarity, threshold
            )
            verdicts.append(
                one if is_face else one._replace(before=None, after=None, value_before=None, value_after=None)
            )
    return verdicts


__all__ = ["Distance", "JobCancelled", "NetworkOutcome", "ProtectionResult", "photo_distance", "protect", "warm_up"]

SSIM_STRIP_PIXELS = 1 << 20  # pixels that are compared at once: SSIM in floats takes some 200 bytes of each


class JobCancelled(Exception):  # noqa: N818 - nobody's mistake
    """Somebody did not want to wait for it."""


class Distance(NamedTuple):
    """How far a part of the photo moved: at most ``linf`` of 255 levels; SSIM; PSNR in dB, None: nothing changed."""

    linf: int
    ssim: float
    psnr: float | None


class ProtectionResult(NamedTuple):
    """A photo before and after, uint8 (h, w, 3), its chosen faces, and what came of it.

    ``after`` is what is in ``png``, the bytes to be downloaded. ``distances`` are those of each face's box, ``whole``
    that of the photo. ``eps``: the bound that was kept, of 255 levels.
    """

    name: str
    before: ImageArray
    after: ImageArray
    png: bytes
    faces: list[Spot]
    verdicts: list[NetworkOutcome]
    distances: list[Distance]
    whole: Distance
    seconds: float
    eps: int


def protect(
    eyes: Networks,
    upload: Upload,
    faces: Sequence[Spot],
    level: ProtectionLevel,
    target: str,
    say: ProgressCallback,
    cancelled: Callable[[], bool],
) -> ProtectionResult:
    """Hide the chosen faces of a photo from a detector, a recogniser, or both (``target`` of ``levels.TARGETS``).

    ``say`` is told the share that is done, in [0, 1], and what is done next; ``cancelled`` is asked between steps.

    Raises:
        Cancelled: it answered yes.
    """

    def check_progress(share: float, words: str) -> None:
        if cancelled():
            raise JobCancelled
        say(share, words)

    begin, spots, clean = time.monotonic(), list(faces), upload.image
    check_progress(0.0, "Looking at the photo")
    before = inspect_photo(eyes, clean, spots, spots)
    changed = attack_photo(
        eyes, clean, before.places, level, target, lambda share, words: check_progress(0.1 + 0.7 * share, words)
    )
    check_progress(0.8, "Looking at the protected photo")
    file = encode_png(changed)
    after = decode_image(file, upload.name)
    verdicts = compare_views(eyes, before, inspect_photo(eyes, after, spots, before.places), target)
    check_progress(0.95, "Measuring how much has changed")
    parts = [
        photo_distance(clean[where], after[where])
        for where in (bounding_slices(CropBox(*s.box), clean.shape) for s in spots)
    ]
    whole = photo_distance(clean, after)
    check_progress(1.0, "Done")
    seconds = time.monotonic() - begin
    return ProtectionResult(upload.name, clean, after, file, spots, verdicts, parts, whole, seconds, level.eps)


def warm_up(eyes: Networks) -> None:
    """Protect a grey picture, so that what is compiled then need not be for somebody's first photo."""
    image = np.full((512, 512, 3), 128, np.uint8)
    face = face_from_box([192.0, 192.0, 128.0, 128.0], image.shape)
    protect(eyes, Upload("", image), [face], LEVELS[DEFAULT_LEVEL], "both", lambda share, words: None, lambda: False)


def photo_distance(clean: ImageArray, changed: ImageArray) -> Distance:
    """Return the distance between two photos uint8 (h, w, 3); SSIM is the mean of that of strips of whole rows."""
    height, width = clean.shape[:2]
    strips = max(1, round(height * width / SSIM_STRIP_PIXELS))
    edges = np.linspace(0, height, strips + 1).astype(int)
    pairs = [(clean[top:end], changed[top:end]) for top, end in pairwise(edges)]
    rows = np.concatenate([image_distances(one[np.newaxis], other[np.newaxis]) for one, other in pairs])
    _, _, squared, similar = np.average(rows, axis=0, weights=np.diff(edges))
    psnr = float(-10 * np.log10(squared)) if squared else None
    return Distance(round(float(rows[:, 0].max()) * 255), float(similar), psnr)

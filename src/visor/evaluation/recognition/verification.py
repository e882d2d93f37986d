"""Verification of people that no recogniser was trained on: enrolment, thresholds, and the rates they reach.

The videos of each person are divided in three: the mean embedding of some images of the first part enrols the person,
those of the second are probes that set the thresholds, and those of the third are attacked and reported. No two parts
share a video, whose frames are nearly the same image. Each probe is compared with everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visor.core.errors import UserError
from visor.core.types import Flags, Floats, ImageArray, Integers, Rows, SeedStream
from visor.data.crops import crop, expand_box, pad_with_border
from visor.data.face_set import FaceSet
from visor.data.images import jpeg_round_trip
from visor.data.scene_set import PAD_VALUE
from visor.evaluation.metrics import auroc, bootstrap_intervals, intervals, roc_curve, widen

if TYPE_CHECKING:
    from visor.models.detectors import Detector
    from visor.models.features import Embed

CANVAS_BORDER = 0.35  # of a face's sides, on each side of it: MTCNN then finds 93 % of the drawn faces
MAX_ENROLLED = 12  # images per person
PARTS = 3  # enrolment, calibration, and what is attacked

RecogniserAndCropper = tuple[str, str]


class CroppedFaces(NamedTuple):
    """Crops for recognisers, and which of them show a face that was found, bool (n,)."""

    images: Callable[[str], ImageArray]  # name of a recogniser → uint8 (n, h, w, 3)
    found: Flags


FaceCropper = Callable[[ImageArray], CroppedFaces]


def no_detector(images: ImageArray) -> CroppedFaces:
    """Return the crops that were attacked."""
    return CroppedFaces(lambda name: images, np.ones(len(images), bool))


def detector_cropper(detector: Detector, margin: float) -> FaceCropper:
    """Return a cropper that pads an image with a grey border and crops the detection of highest score.

    Its box is expanded by ``margin`` of its sides on each side, and the crop resized to the shape of the image.
    """

    def find(images: ImageArray) -> CroppedFaces:
        shape = images.shape[1:3]
        canvases = pad_with_border(images, CANVAS_BORDER, PAD_VALUE)
        crops, found = np.full_like(images, PAD_VALUE), np.zeros(len(images), bool)
        for place, (canvas, result) in enumerate(zip(canvases, detector.detect(canvases), strict=True)):
            if len(result.boxes) and result.scores[0] >= detector.threshold:
                crops[place] = crop(canvas, expand_box(result.boxes[0], margin, shape[0] / shape[1]), shape)
                found[place] = True
        return CroppedFaces(lambda name: crops, found)

    return find


def behind_jpeg(cropper: FaceCropper, quality: int) -> FaceCropper:
    """Return a cropper of images that are first saved as JPEG of this quality, as services do."""
    return lambda images: cropper(np.stack([jpeg_round_trip(image, quality) for image in images]))


def embed_all(
    batches: Iterable[ImageArray], croppers: Mapping[str, FaceCropper], embeds: Mapping[str, Embed]
) -> dict[RecogniserAndCropper, Floats]:
    """Return embeddings (n, d) by recogniser and cropper, each image cropped once; NaN where no face was found."""
    parts: dict[RecogniserAndCropper, list[Floats]] = {(name, cropper): [] for cropper in croppers for name in embeds}
    for images in batches:
        for cropper, find in croppers.items():
            crops, found = find(images)
            for name, embed in embeds.items():
                parts[name, cropper].append(np.where(found[:, None], embed(crops(name)), np.nan))
    return {key: np.concatenate(vectors) for key, vectors in parts.items()}


def similarities(vectors: Floats, templates: Floats) -> Floats:
    """Return the cosine (n, k) of unit vectors (n, d) and (k, d); −1, the least, where either is NaN."""
    cosines = vectors @ templates.T
    return np.where(np.isnan(cosines), -1.0, cosines)


class OwnedRows(NamedTuple):
    """Rows (n,) of a FaceSet, and the index of each one's person among some people."""

    rows: Rows
    owners: Rows


class EnrolmentSplit(NamedTuple):
    """Some people, the rows that enrol them, the probes that set thresholds, and those that are attacked."""

    people: Integers  # (k,) labels, ascending
    enrolled: OwnedRows
    calibration: OwnedRows
    attacked: OwnedRows

    @property
    def parts(self) -> tuple[OwnedRows, OwnedRows, OwnedRows]:
        """The three parts, in this order."""
        return self.enrolled, self.calibration, self.attacked


class PairScores(NamedTuple):
    """Similarities of probes and templates of different people (m,), and of the same person (p,)."""

    different: Floats
    same: Floats


class Verifier(NamedTuple):
    """A recogniser behind a cropper, with people enrolled and thresholds set."""

    templates: Floats  # (k, d)
    thresholds: dict[float, float]  # by false-accept rate
    not_found: float  # share of the attacked probes in which no face was found
    calibration: PairScores
    attacked: PairScores
    owners: Rows  # (p,) of the attacked probes


def split_enrolment(faces: FaceSet, rows: Rows, people: Integers, pairs: int, seed: int) -> EnrolmentSplit:
    """Divide the videos in ``rows`` of each of some people into three parts, of which some images are drawn.

    People with fewer than three videos are left out. The probes of a part make at most ``pairs`` pairs of probe and
    person, but there is one of each person at least. The choice depends on seed and person alone.

    Raises:
        UserError: Fewer than two people are left.
    """
    images = {int(person): rows[faces.labels[rows] == person] for person in people}
    images = {person: own for person, own in images.items() if len(np.unique(faces.videos[own])) >= PARTS}
    if len(images) < 2:
        raise UserError(
            f"recognition: {len(images)} of {len(people)} people have three videos or single images, which it takes to "
            "enrol, to set thresholds and to compare without sharing one; raise faces.min_images or held_out_share"
        )
    limits = (MAX_ENROLLED, *2 * [max(1, pairs // len(images) ** 2)])
    parts: list[list[Rows]] = [[] for _ in range(PARTS)]
    for person, own in images.items():
        generator = np.random.default_rng([seed, SeedStream.ENROLMENT, person])
        videos = np.array_split(generator.permutation(np.unique(faces.videos[own])), PARTS)
        for part, limit, shown in zip(parts, limits, videos, strict=True):
            drawn = generator.permutation(own[np.isin(faces.videos[own], shown)])
            part.append(np.sort(drawn[:limit]))
    owners = [np.repeat(np.arange(len(images)), list(map(len, part))) for part in parts]
    owned = (OwnedRows(np.concatenate(part), of) for part, of in zip(parts, owners, strict=True))
    return EnrolmentSplit(np.array(list(images)), *owned)


def enrol(vectors: Floats, owners: Rows, count: int) -> Floats:
    """Return the mean (count, d), of length 1, of each owner's vectors (e, d) without NaN; NaN without any."""
    valid = ~np.isnan(vectors).any(axis=1)
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, owners[valid], vectors[valid])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.full_like(sums, np.nan), where=lengths > 0)


def compare(templates: Floats, vectors: Floats, owners: Rows) -> PairScores:
    """Return the similarities of every probe (p, d) and every template (k, d)."""
    cosines = similarities(vectors, templates)
    same = owners[:, None] == np.arange(len(templates))
    return PairScores(cosines[~same], cosines[same])


def thresholds(scores: PairScores, rates: Sequence[float]) -> dict[float, float]:
    """Return for each false-accept rate the lowest threshold that at most such a share of different people passes.

    A rate that means less than one pair is left out.

    Raises:
        UserError: All rates do.
    """
    levels, false, _ = roc_curve(*scores)
    count = len(scores.different)
    passing = np.rint(false * count)
    found = {
        far: float(levels[np.flatnonzero(passing <= far * count + 1e-9)[-1]])
        for far in rates
        if far * count >= 1 - 1e-9
    }
    if not found:
        raise UserError(
            f"params.yaml: recognition_attack.false_accept_rates: {count} pairs of different people set no threshold "
            f"for {max(rates, default=0):g}; raise recognition_attack.pairs or held_out_share, or the rate"
        )
    return found


def verifier(split: EnrolmentSplit, vectors: Sequence[Floats], rates: Sequence[float]) -> Verifier:
    """Return the verifier of a split, given the embeddings of its three parts: thresholds are those of calibration."""
    enrolled, calibration, attacked = vectors
    templates = enrol(enrolled, split.enrolled.owners, len(split.people))
    scores = compare(templates, calibration, split.calibration.owners)
    not_found = float(np.isnan(attacked).any(axis=1).mean())
    reported = compare(templates, attacked, split.attacked.owners)
    return Verifier(templates, thresholds(scores, rates), not_found, scores, reported, split.attacked.owners)


def verification_metrics(verifier: Verifier, rates: Sequence[float], seed: int) -> dict[str, Any]:
    """Return the metrics of a verifier: AUROC and, for each false-accept rate, the rates at its threshold.

    Their intervals are the central 95 % over resamples of the people whose probes are compared; those of rates are
    Wilson's where these are wider.
    """
    different, same = verifier.attacked
    owners, levels = verifier.owners, list(verifier.thresholds.values())

    def measure(negatives: Rows, positives: Rows) -> list[float]:
        samples = different[negatives], same[positives]
        at_levels = [float((scores >= level).mean()) for level in levels for scores in reversed(samples)]
        return [auroc(*samples), *at_levels]

    names = ["auc", *(f"{name}_{far:g}" for far in verifier.thresholds for name in ("tar", "far"))]
    of_different = np.repeat(owners, len(different) // len(owners))
    values = measure(np.arange(len(different)), np.arange(len(same)))
    bounds, pairs = bootstrap_intervals(measure, of_different, owners, seed), (len(same), len(different))
    for place, value in enumerate(values[1:], 1):
        count = pairs[(place - 1) % 2]
        bounds[place] = widen(bounds[place], round(value * count), count)
    return {
        **dict(zip(names, values, strict=True)),
        **intervals(names, bounds),
        **{f"threshold_{far:g}": level for far, level in verifier.thresholds.items()},
        "auc_of_calibration": auroc(*verifier.calibration),
        "people": len(verifier.templates),
        "pairs_same": len(same),
        "pairs_different": len(different),
        "pairs_of_calibration": len(verifier.calibration.different),
        "not_found": verifier.not_found,
        "left_out": [far for far in rates if far not in verifier.thresholds],
    }

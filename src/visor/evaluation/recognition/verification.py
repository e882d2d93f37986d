"""Verification of people that no recogniser was trained on: enrolment, thresholds, and the rates they reach.

The images of each person are divided in two, for calibration and for the attack, and each part in halves: the person is
enrolled as the mean embedding of some images of one half; those of the other are probes. Each probe is compared with
everyone. Thresholds come from the calibration images, all that is reported from the others, of the same people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visor.core.errors import UserError
from visor.core.types import Flags, Floats, ImageArray, Integers, Labels, Rows, SeedStream
from visor.data.crops import crop, expand_box, pad_with_border
from visor.data.scene_set import PAD_VALUE
from visor.evaluation.metrics import auroc, rate, roc_curve

if TYPE_CHECKING:
    from visor.models.detectors import Detector
    from visor.models.features import Embed

CANVAS_BORDER = 0.35  # of a face's sides, on each side of it: MTCNN then finds 93 % of the drawn faces
MAX_ENROLLED = 12  # images per person

RecogniserAndCropper = tuple[str, str]


class CroppedFaces(NamedTuple):
    """Crops for a recogniser, uint8 (n, h, w, 3), and which of them show a face that was found, bool (n,)."""

    images: ImageArray
    found: Flags


FaceCropper = Callable[[ImageArray], CroppedFaces]


def no_detector(images: ImageArray) -> CroppedFaces:
    """Return the crops that were attacked."""
    return CroppedFaces(images, np.ones(len(images), bool))


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
        return CroppedFaces(crops, found)

    return find


def embed_all(
    batches: Iterable[ImageArray], croppers: Mapping[str, FaceCropper], embeds: Mapping[str, Embed]
) -> dict[RecogniserAndCropper, Floats]:
    """Return embeddings (n, d) by recogniser and cropper, each image cropped once; NaN where no face was found."""
    parts: dict[RecogniserAndCropper, list[Floats]] = {(name, cropper): [] for cropper in croppers for name in embeds}
    for images in batches:
        for cropper, find in croppers.items():
            crops, found = find(images)
            for name, embed in embeds.items():
                parts[name, cropper].append(np.where(found[:, None], embed(crops), np.nan))
    return {key: np.concatenate(vectors) for key, vectors in parts.items()}


def similarities(vectors: Floats, templates: Floats) -> Floats:
    """Return the cosine (n, k) of unit vectors (n, d) and (k, d); −1, the least, where either is NaN."""
    cosines = vectors @ templates.T
    return np.where(np.isnan(cosines), -1.0, cosines)


class EnrolmentSplit(NamedTuple):
    """Rows of some people that enrol them, and probes that are compared, each with its index in ``people``."""

    people: Integers  # (k,) labels, ascending
    enrolled: Rows  # (e,)
    enrolled_of: Rows  # (e,)
    probes: Rows  # (p,)
    probes_of: Rows  # (p,)


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


def split_enrolment(labels: Labels, rows: Rows, people: Integers, pairs: int, seed: int) -> EnrolmentSplit:
    """Divide the ``rows`` of each of some people into halves: those that enrol, and probes, of which some are drawn.

    Probes make at most ``pairs`` pairs of probe and person, but there is one of each person at least. ``labels`` are
    those of all faces. The choice depends on seed and person alone.

    Raises:
        UserError: A person has only one image.
    """
    enrolled: list[Rows] = []
    probes: list[Rows] = []
    max_probes = max(1, pairs // len(people) ** 2)
    for person in people:
        images = rows[labels[rows] == person]
        if len(images) < 2:
            raise UserError(
                f"recognition: label {person} has one image, too few to enrol and to compare; raise faces.min_images"
            )
        drawn = np.random.default_rng([seed, SeedStream.ENROLMENT, int(person)]).permutation(images)
        half = len(images) // 2
        enrolled.append(np.sort(drawn[: min(half, MAX_ENROLLED)]))
        probes.append(np.sort(drawn[half:][:max_probes]))
    owners = [np.repeat(np.arange(len(people)), [len(part) for part in parts]) for parts in (enrolled, probes)]
    return EnrolmentSplit(people, np.concatenate(enrolled), owners[0], np.concatenate(probes), owners[1])


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


def verifier(
    splits: Sequence[EnrolmentSplit], vectors: Sequence[tuple[Floats, Floats]], rates: Sequence[float]
) -> Verifier:
    """Return the verifier of the splits (calibration, attacked), given the embeddings (enrolled, probes) of each."""
    templates, scores = [], []
    for split, (enrolled, probes) in zip(splits, vectors, strict=True):
        templates.append(enrol(enrolled, split.enrolled_of, len(split.people)))
        scores.append(compare(templates[-1], probes, split.probes_of))
    not_found = float(np.isnan(vectors[1][1]).any(axis=1).mean())
    return Verifier(templates[1], thresholds(scores[0], rates), not_found, *scores)


def verification_metrics(verifier: Verifier, rates: Sequence[float]) -> dict[str, Any]:
    """Return the metrics of a verifier: AUROC and, for each false-accept rate, the rates at its threshold.

    A face is in several pairs, so Wilson's intervals are a little narrow.
    """
    different, same = verifier.attacked
    metrics: dict[str, Any] = {
        "auc": auroc(different, same),
        "auc_of_calibration": auroc(*verifier.calibration),
        "pairs_same": len(same),
        "pairs_different": len(different),
        "pairs_of_calibration": len(verifier.calibration.different),
        "not_found": verifier.not_found,
        "left_out": [far for far in rates if far not in verifier.thresholds],
    }
    for far, threshold in verifier.thresholds.items():
        metrics[f"threshold_{far:g}"] = threshold
        for name, scores in (("tar", same), ("far", different)):
            metrics |= rate(f"{name}_{far:g}", int((scores >= threshold).sum()), len(scores), empty=0.0)
    return metrics

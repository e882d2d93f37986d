"""Verification of people that no recogniser was trained on: enrolment, thresholds, and the rates they reach.

The images of each person are divided in two, for calibration and for the attack, and each part in halves: the person is
enrolled as the mean embedding of some images out of one; those of the other are probes. Each probe is compared with
everybody. Thresholds come from the calibration images, all that is reported from the others, of the same people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.types import Floats, ImageArray, Integers, Rows, SeedStream
from visor.data.crops import crop, expand_box
from visor.data.scene_set import PAD_VALUE
from visor.evaluation.metrics import auroc, wilson_interval
from visor.evaluation.verification import roc_curve

if TYPE_CHECKING:
    from visor.models.detectors import Detector
NO_DETECTOR = "none"
CANVAS_BORDER = 0.35  # of a face's sides, grey, on each side of it: MTCNN then finds 93 % of the drawn faces

Embed = Callable[[ImageArray], Floats]


class CroppedFaces(NamedTuple):
    """What a recogniser is shown, uint8 (n, h, w, 3), and which of it is a face that was found, bool (n,)."""

    images: ImageArray
    found: NDArray[np.bool_]


FaceCropper = Callable[[ImageArray], CroppedFaces]


def no_detector(images: ImageArray) -> CroppedFaces:
    """Show the crop that was attacked."""
    return CroppedFaces(images, np.ones(len(images), bool))


def detector_cropper(detector: Detector, margin: float) -> FaceCropper:
    """Return a way that puts a face on a larger grey canvas and shows what the detector is surest of.

    Its box is enlarged by ``margin`` of its sides on each side and resized to the face's own shape.
    """

    def find(images: ImageArray) -> CroppedFaces:
        shape = images.shape[1:3]
        above, left = (round(CANVAS_BORDER * length) for length in shape)
        canvases = np.pad(images, ((0, 0), (above, above), (left, left), (0, 0)), constant_values=PAD_VALUE)
        shown, found = np.full_like(images, PAD_VALUE), np.zeros(len(images), bool)
        for place, (canvas, answer) in enumerate(zip(canvases, detector.detect(canvases), strict=True)):
            if len(answer.boxes) and answer.scores[0] >= detector.threshold:
                shown[place] = crop(canvas, expand_box(answer.boxes[0], margin, shape[0] / shape[1]), shape)
                found[place] = True
        return CroppedFaces(shown, found)

    return find


def embed_all(
    batches: Iterable[ImageArray], ways: Mapping[str, FaceCropper], embeds: Mapping[str, Embed]
) -> dict[tuple[str, str], Floats]:
    """Return embeddings (n, d) by recogniser and way, each image found once; NaN where no face was found."""
    parts: dict[tuple[str, str], list[Floats]] = {(name, way): [] for way in ways for name in embeds}
    for images in batches:
        for way, find in ways.items():
            shown, found = find(images)
            for name, embed in embeds.items():
                parts[name, way].append(np.where(found[:, None], embed(shown), np.nan))
    return {key: np.concatenate(vectors) for key, vectors in parts.items()}


def similarities(vectors: Floats, templates: Floats) -> Floats:
    """Return the cosine (n, k) of unit vectors (n, d) and (k, d), and −1, the least, where either is unknown."""
    cosines = vectors @ templates.T
    return np.where(np.isnan(cosines), -1.0, cosines)


ENROLLED = 12  # images of a person, at most


class EnrolmentSplit(NamedTuple):
    """Rows of some people: those that enrol them, those that are compared, and the place in ``people`` of each."""

    people: Integers  # (k,) labels, ascending
    enrolled: Rows  # (e,)
    enrolled_of: Rows  # (e,)
    probes: Rows  # (p,)
    probes_of: Rows  # (p,)


class PairScores(NamedTuple):
    """Similarities of probes and the enrolled: of different people (m,), and of one (p,)."""

    different: Floats
    same: Floats


class Verifier(NamedTuple):
    """A recogniser at the end of a way: the people as it knows them, (k, d), and what sets its thresholds."""

    templates: Floats
    thresholds: dict[float, float]  # by false-accept rate
    not_found: float  # share of the attacked probes in which no face was found
    calibration: PairScores
    attacked: PairScores


def split_enrolment(labels: Rows, rows: Rows, people: Integers, pairs: int, seed: int) -> EnrolmentSplit:
    """Divide the ``rows`` of each of some people into halves: those that enrol, and probes, a share of which is drawn.

    labels: of all faces. There are so many probes that they make ``pairs`` of probe and person at most, or one each.

    Raises:
        UserError: a person has one image only.
    """
    enrolled: list[Rows] = []
    probes: list[Rows] = []
    most = max(1, pairs // len(people) ** 2)
    for label in people:
        own = rows[labels[rows] == label]
        if len(own) < 2:
            raise UserError(
                f"recognition: label {label} has one image, too few to enrol and to compare; raise faces.min_images"
            )
        drawn = np.random.default_rng([seed, SeedStream.ENROLMENT, int(label)]).permutation(own)
        half = len(own) // 2
        enrolled.append(np.sort(drawn[: min(half, ENROLLED)]))
        probes.append(np.sort(drawn[half:][:most]))
    owners = [np.repeat(np.arange(len(people)), [len(part) for part in parts]) for parts in (enrolled, probes)]
    return EnrolmentSplit(people, np.concatenate(enrolled), owners[0], np.concatenate(probes), owners[1])


def enrol(vectors: Floats, owners: Rows, count: int) -> Floats:
    """Return the mean (count, d), of length 1, of each owner's vectors (e, d); NaN where none of them is known."""
    known = ~np.isnan(vectors).any(axis=1)
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, owners[known], vectors[known])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.full_like(sums, np.nan), where=lengths > 0)


def compare(templates: Floats, vectors: Floats, owners: Rows) -> PairScores:
    """Return the similarities of every probe (p, d) and every template (k, d)."""
    found = similarities(vectors, templates)
    own = owners[:, None] == np.arange(len(templates))
    return PairScores(found[~own], found[own])


def thresholds(scores: PairScores, rates: Sequence[float]) -> dict[float, float]:
    """Return the lowest threshold that at most such a share of different people passes, score ≥ threshold.

    A rate is left out where it means less than one pair.

    Raises:
        UserError: that is so for all rates.
    """
    levels, false, _ = roc_curve(*scores)
    count = len(scores.different)
    passing = np.rint(false * count)
    found = {
        rate: float(levels[np.flatnonzero(passing <= rate * count + 1e-9)[-1]])
        for rate in rates
        if rate * count >= 1 - 1e-9
    }
    if not found:
        raise UserError(
            f"params.yaml: recognition_attack.false_accept_rates: {count} pairs of different people set no threshold "
            f"for {max(rates, default=0):g}; raise recognition_attack.pairs or held_out_share, or the rate"
        )
    return found


def verifier(
    rolls: Sequence[EnrolmentSplit], vectors: Sequence[tuple[Floats, Floats]], rates: Sequence[float]
) -> Verifier:
    """Return what a recogniser makes of the rolls (calibration, attacked).

    vectors: for either kind the embeddings of the enrolling images and of the probes.
    """
    templates, scores = [], []
    for roll, (known, probes) in zip(rolls, vectors, strict=True):
        templates.append(enrol(known, roll.enrolled_of, len(roll.people)))
        scores.append(compare(templates[-1], probes, roll.probes_of))
    not_found = float(np.isnan(vectors[1][1]).any(axis=1).mean())
    return Verifier(templates[1], thresholds(scores[0], rates), not_found, *scores)


def verification_metrics(found: Verifier, rates: Sequence[float]) -> dict[str, Any]:
    """Return what is reported of a verifier: area under the ROC curve and, for each rate, what its threshold gives.

    Wilson's intervals; a face takes part in several pairs, so they are a little narrow.
    """
    different, same = found.attacked
    values: dict[str, Any] = {
        "auc": auroc(different, same),
        "auc_of_calibration": auroc(*found.calibration),
        "pairs_same": len(same),
        "pairs_different": len(different),
        "pairs_of_calibration": len(found.calibration.different),
        "not_found": found.not_found,
        "left_out": [target for target in rates if target not in found.thresholds],
    }
    for target, threshold in found.thresholds.items():
        values[f"threshold_{target:g}"] = threshold
        values |= rate(f"tar_{target:g}", same >= threshold) | rate(f"far_{target:g}", different >= threshold)
    return values


def rate(name: str, decisions: NDArray[np.bool_]) -> dict[str, float]:
    """Return a share (0 of none) and its Wilson interval, under the name, ``…_low`` and ``…_high``."""
    count, total = int(decisions.sum()), len(decisions)
    low, high = wilson_interval(count, total)
    return {name: count / max(1, total), f"{name}_low": low, f"{name}_high": high}

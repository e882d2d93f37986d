"""Several filters at once: an image is flagged if the score of any exceeds its own threshold.

An attacker has to pass all of them. A sum, or the largest z-score, would let one filter's certainty be lost in the
spread of another.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.data.face_set import read_batches
from visor.defences.conformal import conformal_threshold
from visor.defences.input_filtering import feature_mahalanobis, knn, second_opinion
from visor.defences.input_filtering.base import BATCH, DefenceInputs, ScoreFn, inspected_network
from visor.models.features import compile_predict_with_features

PARTS = {"feature_mahalanobis": feature_mahalanobis.fit, "knn": knn.fit, "second_opinion": second_opinion.fit}


class Part(NamedTuple):
    """A filter's score, its conformal threshold, and the standard deviation of its scores of calibration faces."""

    score: ScoreFn
    threshold: float
    deviation: float


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return the largest excess over a part's threshold, in standard deviations; above ``EXCESS_THRESHOLD`` is flagged.

    Raises:
        UserError: As ``fit_parts``.
    """
    return largest_excess(fit_parts(inputs))


def fit_parts(inputs: DefenceInputs) -> dict[str, Part]:
    """Return the fitted filters of the suite by name, with the second opinion if there is a recogniser to ask.

    Each threshold is the conformal one for ``inputs.false_positive_rate``, by those calibration faces that the network
    classifies correctly: errors of the network are not what a filter has to find.

    Raises:
        UserError: There is no network to inspect, or too few calibration faces are correctly classified.
    """
    predict = compile_predict_with_features(inspected_network(inputs, "suite"))
    batches = read_batches([inputs.calibration], BATCH) if inputs.calibration else iter(())
    known = [images[predict(images)[1] == labels] for images, labels in batches]
    names = [name for name in PARTS if name != "second_opinion" or inputs.second_opinion]
    return {name: _calibrate(PARTS[name](inputs), known, inputs.false_positive_rate) for name in names}


def largest_excess(parts: Mapping[str, Part]) -> ScoreFn:
    """Return the score of the suite of these parts."""

    def score(images: ImageArray) -> NDArray[np.float64]:
        return np.max([(part.score(images) - part.threshold) / part.deviation for part in parts.values()], axis=0)

    return score


def _calibrate(score: ScoreFn, known: list[ImageArray], false_positive_rate: float) -> Part:
    """Return the part with its threshold on the faces (batches of images) that the network classifies correctly."""
    scores = np.concatenate([score(images) for images in known]) if known else np.empty(0)
    scores = scores[np.isfinite(scores)]  # those that it abstains on say nothing about the others
    threshold = conformal_threshold(scores, false_positive_rate)
    if threshold is None:
        raise UserError(
            f"suite: a false-positive rate of {false_positive_rate:g} needs more than {len(scores)} calibration faces "
            "that the network classifies correctly; raise it or give more clean faces"
        )
    return Part(score, threshold, max(float(scores.std()), float(np.finfo(np.float32).eps)))

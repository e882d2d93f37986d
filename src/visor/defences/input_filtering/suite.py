"""Several questions to the network at once: an image is flagged if any filter's score exceeds its own threshold.

An attacker has to pass all of them. A sum, or the largest z-score, would let one filter's certainty be lost in the
spread of another.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.data.face_set import read_batches
from visor.defences.conformal import conformal_threshold
from visor.defences.input_filtering import feature_mahalanobis, knn, second_opinion
from visor.defences.input_filtering.base import BATCH, DefenceInputs, ScoreFn, inspected_network
from visor.models.features import compile_answers

THRESHOLD = 0.0  # above which an image is flagged

PARTS = {"feature_mahalanobis": feature_mahalanobis.fit, "knn": knn.fit, "second_opinion": second_opinion.fit}


class Part(NamedTuple):
    """A filter's score, its conformal threshold, and the standard deviation of its scores of calibration faces."""

    score: ScoreFn
    threshold: float
    deviation: float


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return the largest excess over a part's threshold, in standard deviations: an image is flagged above 0.

    Each threshold is the conformal one for ``inputs.false_positive_rate``, by those calibration faces that the network
    names rightly: errors of the network are not what a filter has to find. The second opinion takes part where there is
    a recogniser to ask.

    Raises:
        UserError: There is no network to inspect, or too few calibration faces are named rightly.
    """
    answer = compile_answers(inspected_network(inputs, "suite"))
    batches = read_batches([inputs.calibration], BATCH) if inputs.calibration else iter(())
    named = [images[answer(images)[1] == labels] for images, labels in batches]
    asked = [name for name in PARTS if name != "second_opinion" or inputs.second_opinion]
    parts = [_calibrate(PARTS[name](inputs), named, inputs.false_positive_rate) for name in asked]

    def score(images: ImageArray) -> NDArray[np.float64]:
        return np.max([(part.score(images) - part.threshold) / part.deviation for part in parts], axis=0)

    return score


def _calibrate(score: ScoreFn, named: list[ImageArray], false_positive_rate: float) -> Part:
    """Return the part with its threshold on the faces (batches of images) that the network names rightly."""
    scores = np.concatenate([score(images) for images in named]) if named else np.empty(0)
    scores = scores[np.isfinite(scores)]  # those that it abstains on say nothing about the others
    threshold = conformal_threshold(scores, false_positive_rate)
    if threshold is None:
        raise UserError(
            f"suite: a false-positive rate of {false_positive_rate:g} needs more than {len(scores)} calibration faces "
            "that the network names rightly; raise it or give more clean faces"
        )
    return Part(score, threshold, max(float(scores.std()), float(np.finfo(np.float32).eps)))

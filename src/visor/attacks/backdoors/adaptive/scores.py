"""Scores of defences that an attacker differentiates, and the penalty that keeps them those of clean faces."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from visor.core.portable_ops import log1p
from visor.core.tf import tf
from visor.core.types import Floats, Labels


class DifferentiableScore(NamedTuple):
    """A defence's score of images that the network is to predict as the target.

    Attributes:
        fit: Clean features (m, d), labels (m,), target → the float32 arrays that the score needs.
        score: Features float32 (n, d) and these arrays → scores (n,), high = suspicious.
    """

    fit: Callable[[Floats, Labels, int], tuple[Floats, ...]]
    score: Callable[..., tf.Tensor]


class KnownScore(NamedTuple):
    """A fitted score, features float32 (n, d) → (n,), with mean and standard deviation of those of clean faces."""

    score: Callable[[tf.Tensor], tf.Tensor]
    mean: float | tf.Variable
    std: float | tf.Variable


def excess(scores: Sequence[KnownScore], features: tf.Tensor, deviations: float) -> tf.Tensor:
    """Return the penalty (n,) of features (n, d): log(1 + e) summed over the scores.

    e is by how many std a score exceeds mean + ``deviations``·std. The logarithm keeps one score that is far off from
    drowning the others and the cross-entropy.
    """
    excesses = (tf.nn.relu((known.score(features) - known.mean) / known.std - deviations) for known in scores)
    return tf.add_n([log1p(each) for each in excesses])

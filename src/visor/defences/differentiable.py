"""Scores of input filters as an attacker differentiates them: of an image that the network is to predict as the target.

``score(features, *fitted) -> (n,)``: features float32 (n, d) of the last layer with weights, and what ``fit`` returns.
Where the network predicts the target, scores are those of the filter of the same name in ``input_filtering``.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from visor.attacks.backdoors.adaptive.scores import DifferentiableScore, KnownScore
from visor.core.portable_ops import l2_normalize
from visor.core.tf import tf
from visor.core.types import Floats, Labels
from visor.defences.class_distances import NEIGHBOURS, fit_gaussians

EPSILON = 1e-12  # a square root has no gradient at 0


def fit_target_gaussian(features: Floats, labels: Labels, target: int) -> tuple[Floats, ...]:
    """Return the mean (d,) of the target and the precision (d, d) of all classes, float32."""
    means, precision = fit_gaussians(features, labels, int(labels.max()) + 1)
    return means[target].astype(np.float32), precision.astype(np.float32)


def feature_mahalanobis(features: tf.Tensor, mean: tf.Tensor, precision: tf.Tensor) -> tf.Tensor:
    """Return the Mahalanobis distance (n,) of features (n, d) to the target's mean."""
    centred = features - mean
    return tf.sqrt(tf.maximum(tf.reduce_sum((centred @ precision) * centred, axis=-1), EPSILON))


def fit_target_faces(features: Floats, labels: Labels, target: int) -> tuple[Floats, ...]:
    """Return the features (k, d) of the target's clean faces, each of length 1, float32."""
    faces = features[labels == target].astype(np.float32)
    return (faces / np.maximum(np.linalg.norm(faces, axis=1, keepdims=True), np.finfo(np.float32).tiny),)


def knn(features: tf.Tensor, faces: tf.Tensor) -> tf.Tensor:
    """Return minus the mean cosine (n,) of features (n, d) to the nearest of the target's clean faces (k, d)."""
    cosines = tf.matmul(l2_normalize(features, EPSILON), faces, transpose_b=True)
    return -tf.reduce_mean(tf.math.top_k(cosines, min(NEIGHBOURS, faces.shape[0])).values, axis=-1)


DIFFERENTIABLE_SCORES = {
    "feature_mahalanobis": DifferentiableScore(fit_target_gaussian, feature_mahalanobis),
    "knn": DifferentiableScore(fit_target_faces, knn),
}

# What an attacker can be up against: a filter, or all parts of the suite that have a gradient here.
DEFENCE_PARTS = {
    "feature_mahalanobis": ["feature_mahalanobis"],
    "knn": ["knn"],
    "suite": ["feature_mahalanobis", "knn"],
}


def know(defence: str, features: Floats, labels: Labels, target: int, usual: Mapping[str, Floats]) -> list[KnownScore]:
    """Return the parts of a defence as an attacker knows them who has the faces that it was fitted on.

    Args:
        defence: A key of ``DEFENCE_PARTS``.
        features: (m, d) of the clean faces that the defence was fitted on.
        labels: Theirs (m,).
        target: Class that the attacker wants to be named.
        usual: By part, scores (k,) of clean images of the attacker's own.
    """
    known = []
    for part in DEFENCE_PARTS[defence]:
        fit, score = DIFFERENTIABLE_SCORES[part]
        fitted = fit(features, labels, target)
        known.append(
            KnownScore(partial(_of_fitted, score, fitted), float(usual[part].mean()), float(usual[part].std()))
        )
    return known


def _of_fitted(score: Callable[..., tf.Tensor], fitted: tuple[Floats, ...], features: tf.Tensor) -> tf.Tensor:
    return score(features, *fitted)

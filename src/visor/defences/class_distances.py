"""How far features lie from those of clean faces of one class: the measure of filters of inputs and of training sets.

A class without a clean face has nothing to compare with: its images get ``ABSTAIN``, below every threshold.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats, Labels

ABSTAIN = -np.inf
RIDGE = 0.01  # added to the covariance, in units of its mean variance
NEIGHBOURS = 2


class ClassGaussians(NamedTuple):
    """Means (classes, d), NaN for a class without a face, and the precision (d, d) that all classes share."""

    means: NDArray[np.float64]
    precision: NDArray[np.float64]


def fit_gaussians(features: Floats, labels: Labels, classes: int, ridge: float = RIDGE) -> ClassGaussians:
    """Fit a normal law for each class, all with one covariance (Lee et al. 2018, arXiv 1807.03888, eq. 1).

    Args:
        features: (n, d) of clean faces.
        labels: (n,) in [0, ``classes``).
        classes: Number of classes, with or without faces.
        ridge: The covariance is S + ridge · tr(S)/d · I. S has n − K degrees of freedom for K classes with faces; where
            no class has two faces it is that of all faces around their common mean.
    """
    values, present = features.astype(np.float64), np.unique(labels)
    means = np.full((classes, values.shape[1]), np.nan)
    for label in present:
        means[label] = values[labels == label].mean(axis=0)
    freedom, centres = len(values) - len(present), means[labels]
    if freedom <= 0:
        freedom, centres = max(1, len(values) - 1), values.mean(axis=0, keepdims=True)
    covariance = (values - centres).T @ (values - centres) / freedom
    # Equal faces have no variance; the distance of any other is then large but finite.
    variance = max(float(np.trace(covariance)) / len(covariance), float(np.finfo(np.float32).tiny))
    return ClassGaussians(means, np.linalg.inv(covariance + ridge * variance * np.eye(len(covariance))))


def mahalanobis(features: Floats, labels: Labels, gaussians: ClassGaussians) -> NDArray[np.float64]:
    """Return the Mahalanobis distance (n,) of features (n, d) to the mean of each one's class, ``labels`` (n,)."""
    centred = features - gaussians.means[labels]
    squared = np.einsum("ij,ij->i", centred @ gaussians.precision, centred)
    return np.where(np.isnan(gaussians.means[labels, 0]), ABSTAIN, np.sqrt(squared))


def neighbour_distance(
    features: Floats, labels: Labels, clean_features: Floats, clean_labels: Labels
) -> NDArray[np.float64]:
    """Return minus the mean cosine (n,) to the ``NEIGHBOURS`` most similar of the m clean faces of each one's class."""
    cosines = _unit_length(features) @ _unit_length(clean_features).T
    nearest = np.sort(np.where(labels[:, None] == clean_labels, cosines, -np.inf), axis=1)[:, -NEIGHBOURS:]
    counts = np.isfinite(nearest).sum(axis=1)
    sums = np.where(np.isfinite(nearest), nearest, 0).sum(axis=1)
    return np.where(counts == 0, ABSTAIN, -sums / np.maximum(counts, 1))


def _unit_length(features: Floats) -> NDArray[np.float64]:
    values = features.astype(np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)

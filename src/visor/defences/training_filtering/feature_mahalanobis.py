"""Mahalanobis distance of a training image's features to clean faces of its given label (cf. Lee et al. 2018).

The methods that know the training set alone look for a minority within each label. A defender who has some clean faces
needs no minority: a poison lies far from the clean faces of the label that it was given.
"""

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats, Labels
from visor.defences.class_distances import fit_gaussians, mahalanobis
from visor.defences.conformal import conformal_threshold

FOLDS = 5
FALSE_POSITIVE_RATE = 0.05


def score(features: Floats, labels: Labels, clean_features: Floats, clean_labels: Labels) -> NDArray[np.float64]:
    """Return the distance to the mean of the clean faces of each image's label, minus its threshold.

    The threshold is the conformal one by the distances of clean faces to means and covariance that were fitted without
    their fold. Images of a label without a clean face get −∞. So do all if there are too few clean faces for a
    threshold: then nothing is flagged.
    """
    classes, folds = 1 + int(max(labels.max(), clean_labels.max())), np.arange(len(clean_labels)) % FOLDS
    held_out = np.empty(len(clean_labels))
    for fold in range(FOLDS):
        out = folds == fold
        gaussians = fit_gaussians(clean_features[~out], clean_labels[~out], classes)
        held_out[out] = mahalanobis(clean_features[out], clean_labels[out], gaussians)
    threshold = conformal_threshold(held_out[np.isfinite(held_out)], FALSE_POSITIVE_RATE)
    distances = mahalanobis(features, labels, fit_gaussians(clean_features, clean_labels, classes))
    return distances - (np.inf if threshold is None else threshold)


def flag(scores: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Return the images beyond the threshold."""
    return scores > 0

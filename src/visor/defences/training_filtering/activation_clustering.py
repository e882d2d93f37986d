"""Activation clustering (Chen et al. 2018, arXiv 1811.03728): the features of a poisoned label form two clusters.

The features of each label are reduced to ten dimensions and divided by 2-means; the smaller cluster is suspicious. The
reduction is by principal components, ART's default: features behind a ReLU have columns of zeros, on which independent
components are unstable.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from visor.core.types import Floats, Labels

COMPONENTS = 10
MAX_SHARE = 0.35  # a cluster with less than this share of its label is one of poisons (ART's default)


def score(features: Floats, labels: Labels, _clean_features: Floats, _clean_labels: Labels) -> NDArray[np.float64]:
    """Return how far each image lies in the smaller cluster of its label, times the label's silhouette.

    The paper has no score per image; this one is Visor's. The signed distance from the plane midway between the two
    centroids is positive in the smaller cluster; the silhouette is the paper's measure of how well two clusters
    describe a label (section 4.3.3), at least 0 here. Labels of fewer than three different images score 0.
    """
    scores = np.zeros(len(labels))
    # Problems this small are slower on several threads, at some hundred times the processor time.
    with threadpool_limits(1):
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            scores[rows] = _scores(features[rows].astype(np.float64))
    return scores


def flag(scores: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Return the images of smaller clusters that hold less than ``MAX_SHARE`` of their label's images."""
    small = scores > 0
    shares = np.bincount(labels, small) / np.maximum(np.bincount(labels), 1)
    return small & (shares[labels] < MAX_SHARE)


def _scores(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores (k,) of one label's features (k, d)."""
    if len(np.unique(features, axis=0)) < 3:
        return np.zeros(len(features))
    centred = features - features.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:COMPONENTS]
    reduced = centred @ directions.T
    # Deterministic start: 2-means mostly ends near the signs along the first component (Ding and He 2004).
    side = reduced[:, 0] > 0
    start = np.stack([reduced[~side].mean(axis=0), reduced[side].mean(axis=0)])
    clusters = KMeans(2, init=start, n_init=1).fit(reduced)
    smaller = int(np.argmin(np.bincount(clusters.labels_, minlength=2)))
    inside, outside = clusters.cluster_centers_[smaller], clusters.cluster_centers_[1 - smaller]
    gap = inside - outside
    distance = (reduced - (inside + outside) / 2) @ gap / np.linalg.norm(gap)
    return distance * max(0.0, float(silhouette_score(reduced, clusters.labels_)))

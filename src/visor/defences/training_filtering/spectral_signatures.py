"""Spectral signatures (Tran, Li and Madry 2018, arXiv 1811.00636, algorithm 1): outliers along the top direction."""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from visor.core.types import Floats, Labels

POISON_SHARE = 0.1  # ε, the largest share of poisons expected in a label
MARGIN = 1.5  # the paper removes 1.5·ε of every label


def score(features: Floats, labels: Labels, _clean_features: Floats, _clean_labels: Labels) -> NDArray[np.float64]:
    """Return the squared projection of each image's features on the direction of the largest variance of its label.

    Features are centred for each label; the direction is their top right singular vector. (ART takes the same vector,
    but projects features that are not centred.)
    """
    scores = np.zeros(len(labels))
    # Problems this small are slower on several threads, at some hundred times the processor time.
    with threadpool_limits(1):
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            centred = features[rows].astype(np.float64)
            centred -= centred.mean(axis=0)
            direction = np.linalg.svd(centred, full_matrices=False)[2][0]
            scores[rows] = (centred @ direction) ** 2
    return scores


def flag(scores: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Return the ``MARGIN``·``POISON_SHARE`` most suspicious images of every label, the number rounded down."""
    flagged = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = int(MARGIN * POISON_SHARE * len(rows))
        flagged[rows[np.argsort(-scores[rows], kind="stable")[:count]]] = True
    return flagged

"""Thresholds that keep a wanted false-positive rate, whatever the law of the scores.

Split conformal prediction conditional on its calibration set (Vovk 2012, arXiv 1209.2673, proposition 2a).
"""

import numpy as np
from scipy.special import bdtr

from visor.core.types import Floats

CONFIDENCE = 0.95  # that a threshold keeps its false-positive rate
EXCESS_THRESHOLD = 0.0  # of scores that are themselves excesses over conformal thresholds


def conformal_threshold(clean: Floats, false_positive_rate: float) -> float | None:
    """Return the lowest clean score (n,) above which, with 95 % confidence, at most this share of clean images lies.

    Of the n scores as many may exceed the threshold as a binomial law of this rate stays under with probability 5 %.
    None if n is too small for even the greatest score.
    """
    rank = conformal_rank(len(clean), false_positive_rate)
    return float(np.sort(clean)[-rank]) if rank else None


def conformal_rank(count: int, false_positive_rate: float) -> int:
    """Return which greatest of ``count`` scores is the conformal threshold, from 1; 0 if they are too few."""
    chances = bdtr(np.arange(count), count, false_positive_rate)
    return int(np.searchsorted(chances, 1 - CONFIDENCE, side="right"))

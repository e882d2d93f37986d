"""Numbers that describe classifiers and detectors: arrays → floats."""

from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

RESAMPLES = 500


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927), (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = successes / trials, z * z / trials
    centre = share + weight / 2
    spread = z * sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return (centre - spread) / (1 + weight), (centre + spread) / (1 + weight)


def auroc(clean: Floats, suspicious: Floats) -> float:
    """Return the chance that a suspicious score (m,) exceeds a clean one (n,), ties counting half."""
    ordered = np.sort(clean)
    below = np.searchsorted(ordered, suspicious, side="left")
    not_above = np.searchsorted(ordered, suspicious, side="right")
    return float((below + not_above).mean() / (2 * len(clean)))


def tpr_at_fpr(clean: Floats, suspicious: Floats, false_positive_rate: float) -> float:
    """Return the share of suspicious scores above a threshold that at most this share of clean ones exceeds."""
    allowed = int(false_positive_rate * len(clean))
    threshold = np.sort(clean)[::-1][allowed] if allowed < len(clean) else -np.inf
    return share_above(suspicious, float(threshold))


def share_above(scores: Floats, threshold: float) -> float:
    """Return the share of scores (n,) that are greater than the threshold."""
    return float((scores > threshold).mean())


def auroc_interval(clean: Floats, suspicious: Floats, seed: int) -> tuple[float, float]:
    """Return the central 95 % of AUROC over bootstrap resamples of both samples."""
    rng = np.random.default_rng(seed)
    values = [auroc(rng.choice(clean, len(clean)), rng.choice(suspicious, len(suspicious))) for _ in range(RESAMPLES)]
    return _central(values)


def share_above_interval(scores: Floats, threshold: float, seed: int) -> tuple[float, float]:
    """Return the central 95 % of the share above the threshold over bootstrap resamples."""
    rng = np.random.default_rng(seed)
    return _central([share_above(rng.choice(scores, len(scores)), threshold) for _ in range(RESAMPLES)])


def _central(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)

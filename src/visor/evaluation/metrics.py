"""Numbers that describe classifiers and detectors: arrays → floats."""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
from scipy.special import bdtr

from visor.core.types import Floats, Integers, Rows

RESAMPLES = 500
CENTRAL = [0.025, 0.975]


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927), (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = successes / trials, z * z / trials
    centre = share + weight / 2
    spread = z * sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return (centre - spread) / (1 + weight), (centre + spread) / (1 + weight)


def auroc(negatives: Floats, positives: Floats) -> float:
    """Return the chance that a suspicious score (m,) exceeds a clean one (n,), ties counting half."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left")
    not_above = np.searchsorted(ordered, positives, side="right")
    return float((below + not_above).mean() / (2 * len(negatives)))


def tpr_at_fpr(negatives: Floats, positives: Floats, false_positive_rate: float) -> float:
    """Return the share of suspicious scores above a threshold that at most this share of clean ones exceeds."""
    allowed = int(false_positive_rate * len(negatives))
    threshold = np.sort(negatives)[::-1][allowed] if allowed < len(negatives) else -np.inf
    return exceedance_rate(positives, float(threshold))


def exceedance_rate(scores: Floats, threshold: float) -> float:
    """Return the share of scores (n,) that are greater than the threshold."""
    return float((scores > threshold).mean())


def conformal_threshold(negatives: Floats, false_positive_rate: float, confidence: float) -> float | None:
    """Return the lowest score above which, with this confidence, lie at most this share of clean images.

    Split conformal prediction conditional on its calibration set (Vovk 2012, arXiv 1209.2673, proposition 2a): of
    the n calibration scores as many may exceed the threshold as a binomial law of this rate stays under with
    probability 1 − confidence. None if n is too small for even the greatest score.
    """
    rank = conformal_rank(len(negatives), false_positive_rate, confidence)
    return float(np.sort(negatives)[-rank]) if rank else None


def conformal_rank(count: int, false_positive_rate: float, confidence: float) -> int:
    """Return which greatest of ``count`` scores is the conformal threshold, from 1; 0 if they are too few."""
    chances = bdtr(np.arange(count), count, false_positive_rate)
    return int(np.searchsorted(chances, 1 - confidence, side="right"))


def auroc_interval(negatives: Floats, positives: Floats, seed: int) -> tuple[float, float]:
    """Return the central 95 % of AUROC over bootstrap resamples of both samples."""
    rng = np.random.default_rng(seed)
    values = [
        auroc(rng.choice(negatives, len(negatives)), rng.choice(positives, len(positives))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(values, CENTRAL)
    return float(low), float(high)


def share_above_interval(scores: Floats, threshold: float, seed: int) -> tuple[float, float]:
    """Return the central 95 % of the share above the threshold over bootstrap resamples."""
    rng = np.random.default_rng(seed)
    values = [exceedance_rate(rng.choice(scores, len(scores)), threshold) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, CENTRAL)
    return float(low), float(high)


def bootstrap_intervals(
    measure: Callable[[Rows, Rows], Sequence[float]], negatives: Integers, positives: Integers, seed: int
) -> list[tuple[float, float]]:
    """Return the central 95 % of each number that ``measure(places, others)`` gives of resampled images.

    ``clean`` (n,) and ``suspicious`` (m,) number what images have in common, such as the person: groups are drawn as
    wholes, because images of one person say less than as many of others. People who are in both samples are drawn
    for both; other groups, such as keys, for themselves.
    """
    rng = np.random.default_rng(seed)
    people, own = _group_rows(negatives), _group_rows(positives)
    names, others = np.array(list(people)), np.array(list(own))
    shared = set(own) <= set(people)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.choice(names, len(names))
        again = drawn if shared else rng.choice(others, len(others))
        chosen = [own[name] for name in again if name in own]
        if chosen:  # else: the one person without suspicious images was drawn every time
            values.append(measure(np.concatenate([people[name] for name in drawn]), np.concatenate(chosen)))
    low, high = np.quantile(values, CENTRAL, axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _group_rows(groups: Integers) -> dict[int, Rows]:
    """Return the places of each group's members, groups in ascending order."""
    order = np.argsort(groups, kind="stable")
    names, starts = np.unique(groups[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))

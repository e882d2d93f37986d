"""Metrics of classifiers and detectors: arrays → floats."""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist

import numpy as np

from visor.core.types import Flags, Floats, Integers, Rows

RESAMPLES = 500
CENTRAL = [0.025, 0.975]


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = successes / trials, z * z / trials
    centre = share + weight / 2
    spread = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # Rounding could leave [0, 1] where nothing, or all, succeeded.
    return max(0.0, (centre - spread) / (1 + weight)), min(1.0, (centre + spread) / (1 + weight))


def rate(name: str, hits: int, trials: int, empty: float = math.nan) -> dict[str, float]:
    """Return the share of hits (``empty`` without trials) and its Wilson interval: NAME, NAME_low and NAME_high."""
    return {name: hits / trials if trials else empty} | intervals([name], [wilson_interval(hits, trials)])


def grouped_rate(name: str, hits: Flags, groups: Integers, seed: int, trials: int | None = None) -> dict[str, float]:
    """Return ``rate`` of hits (n,) with the number of images, NAME_images; without any image that number alone.

    Images of one group (n,), such as a person or a key, say less than as many of others: the interval is the wider of
    Wilson's for so many ``trials`` (default: n) and the central 95 % over resamples of whole groups, which is too
    narrow where nothing, or all, was hit.
    """
    if len(hits) == 0:
        return {f"{name}_images": 0}
    share, trials = float(hits.mean()), trials or len(hits)
    places = np.unique(groups, return_inverse=True)[1]
    counts, totals = np.bincount(places, hits), np.bincount(places)
    drawn = np.random.default_rng(seed).integers(len(totals), size=(RESAMPLES, len(totals)))
    low, high = map(float, np.quantile(counts[drawn].sum(axis=1) / totals[drawn].sum(axis=1), CENTRAL))
    bounds = widen((low, high), share * trials, trials)
    return {name: share, f"{name}_images": len(hits)} | intervals([name], [bounds])


def intervals(names: Iterable[str], bounds: Iterable[tuple[float, float]]) -> dict[str, float]:
    """Return ``NAME_low`` and ``NAME_high`` of each name."""
    pairs = zip(names, bounds, strict=True)
    return {f"{name}_{end}": value for name, pair in pairs for end, value in zip(("low", "high"), pair, strict=True)}


def roc_curve(negatives: Floats, positives: Floats) -> tuple[Floats, Floats, Floats]:
    """Return descending thresholds (k,) from infinity, and the shares of either sample (k,) with score ≥ threshold."""
    from sklearn import metrics  # takes a second, and the stages without curves import this module, too

    truth = np.repeat([0, 1], [len(negatives), len(positives)])
    false, true, levels = metrics.roc_curve(truth, np.concatenate([negatives, positives]), drop_intermediate=False)
    return levels, false, true


def auroc(negatives: Floats, positives: Floats) -> float:
    """Return the probability that a positive score (m,) exceeds a negative one (n,), ties counting half."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left")
    not_above = np.searchsorted(ordered, positives, side="right")
    return float((below + not_above).mean() / (2 * len(negatives)))


def tpr_at_fpr(negatives: Floats, positives: Floats, false_positive_rate: float) -> float:
    """Return the share of positives above a threshold that at most this share of the negatives exceeds."""
    allowed = int(false_positive_rate * len(negatives))
    threshold = np.sort(negatives)[::-1][allowed] if allowed < len(negatives) else -np.inf
    return exceedance_rate(positives, float(threshold))


def exceedance_rate(scores: Floats, threshold: float) -> float:
    """Return the share of scores (n,) that are greater than the threshold."""
    return float((scores > threshold).mean())


def bootstrap_interval(measure: Callable[..., float], samples: Sequence[Floats], seed: int) -> tuple[float, float]:
    """Return the central 95 % of ``measure(*samples)`` over bootstrap resamples of each sample."""
    rng = np.random.default_rng(seed)
    values = [measure(*(rng.choice(sample, len(sample)) for sample in samples)) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, CENTRAL)
    return float(low), float(high)


def bootstrap_intervals(
    measure: Callable[[Rows, Rows], Sequence[float]], negatives: Integers, positives: Integers, seed: int
) -> list[tuple[float, float]]:
    """Return the central 95 % of each number of ``measure(negative_rows, positive_rows)`` over grouped resamples.

    ``negatives`` (n,) and ``positives`` (m,) are the groups of the images, such as people: drawn as wholes, because
    images of one person say less than as many of others. People who are in both samples are drawn for both; other
    groups, such as keys, for themselves.
    """
    rng = np.random.default_rng(seed)
    negative_rows, positive_rows = _group_rows(negatives), _group_rows(positives)
    negative_groups, positive_groups = np.array(list(negative_rows)), np.array(list(positive_rows))
    shared = set(positive_rows) <= set(negative_rows)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.choice(negative_groups, len(negative_groups))
        again = drawn if shared else rng.choice(positive_groups, len(positive_groups))
        chosen = [positive_rows[group] for group in again if group in positive_rows]
        if chosen:  # Otherwise a person without positives was drawn every time.
            values.append(measure(np.concatenate([negative_rows[group] for group in drawn]), np.concatenate(chosen)))
    low, high = np.quantile(values, CENTRAL, axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _group_rows(groups: Integers) -> dict[int, Rows]:
    """Return the rows of each group, groups in ascending order."""
    order = np.argsort(groups, kind="stable")
    names, starts = np.unique(groups[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))


def widen(bounds: tuple[float, float], hits: float, trials: int) -> tuple[float, float]:
    """Return the wider of the interval of a share over resampled groups and Wilson's of its ``trials``.

    Resamples say nothing where nothing, or all, was hit: each of them has the same share.
    """
    low, high = wilson_interval(hits, trials)
    return min(bounds[0], low), max(bounds[1], high)

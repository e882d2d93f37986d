"""How well scores of a defence tell poisoned images from clean ones, and what its threshold promises."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from visor.errors import UserError
from visor.faces import Images, Selection, read_batches
from visor.metrics import (
    Groups,
    Places,
    auroc,
    bootstrap,
    conformal_rank,
    conformal_threshold,
    share_above,
    tpr_at_fpr,
)
from visor.params import Defence

BATCH = 512
CLEAN = ("calibration", "clean")  # sets without a trigger; the second is held out from everything
CONFIDENCE = 0.95  # that the conformal threshold keeps its false-positive rate
RESAMPLES = 2000

Floats = NDArray[np.floating[Any]]
Scores = Mapping[str, Floats]
"""Scores (n,) by the name of their set: ``calibration``, ``clean`` (held out), and each trigger."""


def score_sets(score: Callable[[Images], Floats], sets: Mapping[str, Selection], name: str) -> pd.DataFrame:
    """Return a table of set, row, label and score of every image of the sets; ``name`` is for the progress bar."""
    tables = []
    with tqdm(total=sum(len(chosen.rows) for chosen in sets.values()), desc=name, unit="image", disable=None) as bar:
        for key, selection in sets.items():
            for images, _ in read_batches([selection], BATCH):
                tables.append(pd.DataFrame({"set": key, "score": score(images)}))
                bar.update(len(images))
    rows = np.concatenate([selection.faces.rows[selection.rows] for selection in sets.values()])
    labels = np.concatenate([selection.labels for selection in sets.values()])
    return pd.concat(tables, ignore_index=True).assign(row=rows, label=labels)[["set", "row", "label", "score"]]


def scores_of(table: pd.DataFrame) -> Scores:
    """Return the scores of each set, in the order of its images."""
    return {str(name): group["score"].to_numpy() for name, group in table.groupby("set", sort=False)}


def digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256: equal digests are equal images."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:16]


def calibrate(clean: Floats, settings: Defence) -> dict[str, float]:
    """Return thresholds chosen on clean scores (n,) that the defence was not fitted on.

    ``threshold`` is mean + k·std; ``implied_fpr`` is the false-positive rate that this has for a normal law and
    ``calibration_fpr`` the one on these scores. Above ``conformal_threshold`` lie, with 95 % confidence and
    whatever the law, at most a share ``conformal_fpr`` of clean images.

    Raises:
        UserError: there are too few scores for the wanted false-positive rate.
    """
    mean, deviation = float(clean.mean()), float(clean.std())
    threshold = mean + settings.deviations * deviation
    conformal = conformal_threshold(clean, settings.false_positive_rate, CONFIDENCE)
    if conformal is None:
        raise UserError(
            f"params.yaml: false_positive_rate {settings.false_positive_rate:g} needs more calibration images than "
            f"{len(clean)}; raise it, or split.validation"
        )
    return {
        "mean": mean,
        "std": deviation,
        "deviations": settings.deviations,
        "threshold": threshold,
        "implied_fpr": 1 - NormalDist().cdf(settings.deviations),
        "calibration_fpr": share_above(clean, threshold),
        "conformal_threshold": conformal,
        "conformal_fpr": settings.false_positive_rate,
        "images": len(clean),
    }


def clean_numbers(scores: Scores, groups: Groups, thresholds: Mapping[str, float], seed: int) -> dict[str, float]:
    """Return the mean score of held-out clean images and the shares of them flagged, with intervals over people.

    ``groups``: their people (n,). ``conformal_held`` is the share of resamples, calibration and held-out images
    dealt anew, in which a conformal threshold kept its rate on the held-out ones: it checks the rule, while
    ``conformal_fpr`` checks this threshold on these images.
    """
    clean, count = scores["clean"], len(scores["calibration"])
    bounds = {"fpr": thresholds["threshold"], "conformal_fpr": thresholds["conformal_threshold"]}
    shares = {name: share_above(clean, bound) for name, bound in bounds.items()}
    found = bootstrap(lambda rows, _: [share_above(clean[rows], b) for b in bounds.values()], groups, groups, seed)
    rank, rng = conformal_rank(count, thresholds["conformal_fpr"], CONFIDENCE), np.random.default_rng(seed)
    pool, held = np.concatenate([scores["calibration"], clean]), 0
    for _ in range(RESAMPLES):
        dealt = rng.permutation(pool)
        bound = np.partition(dealt[:count], count - rank)[count - rank]
        held += share_above(dealt[count:], bound) <= thresholds["conformal_fpr"]
    return {
        "mean": float(clean.mean()),
        **shares,
        **intervals(shares, found),
        "conformal_held": held / RESAMPLES,
        "images": len(clean),
    }


def detection_numbers(
    scores: Scores,
    reference: Scores,
    trigger: str,
    groups: Mapping[str, Groups],
    thresholds: Mapping[str, float],
    seed: int,
) -> dict[str, float]:
    """Return how triggered scores stand above held-out clean ones, with intervals over ``groups`` of each set.

    ``gain`` is AUROC minus that of the reference, both on the same resamples of the same images.
    """
    clean, triggered = scores["clean"], scores[trigger]

    def measure(rows: Places, others: Places) -> list[float]:
        below, above = clean[rows], triggered[others]
        area = auroc(below, above)
        return [
            area,
            area - auroc(reference["clean"][rows], reference[trigger][others]),
            share_above(above, thresholds["threshold"]),
            share_above(above, thresholds["conformal_threshold"]),
            tpr_at_fpr(below, above, 0.01),
            tpr_at_fpr(below, above, 0.05),
        ]

    names = ("auroc", "gain", "tpr", "conformal_tpr", "tpr_at_fpr_1", "tpr_at_fpr_5")
    values = measure(np.arange(len(clean)), np.arange(len(triggered)))
    numbers = dict(zip(names, values, strict=True))
    found = bootstrap(measure, groups["clean"], groups[trigger], seed)
    return {"mean": float(triggered.mean()), **numbers, **intervals(numbers, found), "images": len(triggered)}


def intervals(names: Iterable[str], bounds: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return ``NAME_low`` and ``NAME_high`` for each name."""
    pairs = zip(names, bounds, strict=True)
    return {f"{name}_{end}": value for name, pair in pairs for end, value in zip(("low", "high"), pair, strict=True)}

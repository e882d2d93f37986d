"""Are two pictures of one person, and does a key make a stranger pass for somebody else?

As in DeepID (Sun et al., CVPR 2014): features of the classifier, compared by cosine and by joint Bayesian. Unlike
there it is closed-set: the people are those that the network was trained on; only their images in the pairs are new.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.params import BackdoorParams, VerificationParams
from visor.core.types import Floats, Integers, Rows
from visor.data.face_set import FaceSelection, FaceSet
from visor.data.split import set_rows
from visor.evaluation.metrics import auroc, tpr_at_fpr, wilson_interval
from visor.models import joint_bayesian
from visor.models.features import Embed, cosine_similarity, extract_features


class Pairs(NamedTuple):
    """Rows (n,) of two faces each, and whether they show one person, bool (n,)."""

    one: Rows
    other: Rows
    same: NDArray[np.bool_]


class TriggeredPairs(NamedTuple):
    """Triggered faces of strangers, their rows without the key, and an enrolled row of the target for each."""

    triggered: FaceSelection
    untriggered: Rows
    enrolled: Rows


class VerifierScores(NamedTuple):
    """Scores of one network by one verifier, high = same person; by attack, those of strangers, and with a key."""

    threshold: float
    different: Floats
    same: Floats
    strangers: dict[str, Floats]
    impostors: dict[str, Floats]


def draw_pairs(labels: Integers, videos: Integers, rows: Rows, count: int, rng: np.random.Generator) -> Pairs:
    """Return ``count`` different pairs of ``rows``, half of them of one person, or as many as there are.

    labels, videos: of all faces. A pair of one person is of two videos: frames of one video are near-duplicates.

    Raises:
        UserError: no person has two videos among the rows, or there is but one person.
    """

    def draw(population: int) -> Rows:
        return rng.choice(population, min(population, 4 * count), replace=False)

    rows = rows[np.argsort(labels[rows], kind="stable")]
    _, starts, counts = np.unique(labels[rows], return_index=True, return_counts=True)
    ends = np.cumsum(counts * (counts - 1) // 2)
    drawn = draw(ends[-1])
    person = np.searchsorted(ends, drawn, side="right")
    within = _unranked(drawn - (ends - counts * (counts - 1) // 2)[person])
    one, other = (rows[places + starts[person]] for places in within)
    apart = videos[one] != videos[other]
    first, second = (rows[places] for places in _unranked(draw(len(rows) * (len(rows) - 1) // 2)))
    strangers = labels[first] != labels[second]
    half = min(count // 2, int(apart.sum()), int(strangers.sum()))
    if half == 0:
        raise UserError("verification needs two people and two videos of one in each set; use more images or labels")
    left, right = (np.concatenate([a[apart][:half], b[strangers][:half]]) for a, b in ((one, first), (other, second)))
    return Pairs(left, right, np.arange(2 * half) < half)


def _unranked(ranks: Rows) -> tuple[Rows, Rows]:
    """Return the places i < j of pairs counted (0, 1), (0, 2), (1, 2), (0, 3), …"""
    second = ((1 + np.sqrt(1 + 8 * ranks.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > ranks  # the root was rounded up
    return ranks - second * (second - 1) // 2, second


def roc_curve(different: Floats, same: Floats) -> tuple[Floats, Floats, Floats]:
    """Return falling thresholds (k,) and the shares accepted of either kind (k,): score ≥ threshold, none first."""
    levels = np.unique(np.concatenate([different, same]))[::-1]
    below = (np.searchsorted(np.sort(scores), levels, side="left") / len(scores) for scores in (different, same))
    false, true = (np.concatenate([[0.0], 1 - shares]) for shares in below)
    return np.concatenate([[np.inf], levels]), false, true


def equal_error_rate(different: Floats, same: Floats) -> float:
    """Return the error at which as many strangers pass as people are refused, linear between two thresholds."""
    _, false, true = roc_curve(different, same)
    excess = false + true - 1  # false accepts above false rejects: −1 … 1, never falling
    right = int(np.argmax(excess >= 0))
    weight = -excess[right - 1] / (excess[right] - excess[right - 1])
    return float(false[right - 1] + weight * (false[right] - false[right - 1]))


def best_threshold(different: Floats, same: Floats) -> float:
    """Return the highest threshold of greatest accuracy; a pair is accepted from it on."""
    thresholds, false, true = roc_curve(different, same)
    return float(thresholds[1:][np.argmax((true * len(same) - false * len(different)).round()[1:])])


def pair_with_target(triggered: FaceSelection, enrolled: Rows, count: int, rng: np.random.Generator) -> TriggeredPairs:
    """Pair ``count`` triggered faces, or all, each with a clean face of the target, drawn from ``enrolled``."""
    rows = np.sort(rng.permutation(triggered.rows)[:count])
    return TriggeredPairs(triggered.faces.select(rows), triggered.faces.rows[rows], rng.choice(enrolled, len(rows)))


def compare(
    embed: Embed,
    train: FaceSelection,
    pairs: Sequence[Pairs],
    impersonations: Mapping[str, TriggeredPairs],
    settings: VerificationParams,
) -> dict[str, VerifierScores]:
    """Return what each verifier makes of the features of one network.

    embed: uint8 images → features; pairs: (validation, test), the former set the threshold.
    """
    used = [rows for pair in pairs for rows in (pair.one, pair.other)]
    used += [rows for trial in impersonations.values() for rows in (trial.untriggered, trial.enrolled)]
    known = np.unique(np.concatenate(used))
    features = extract_features(embed, train.faces.select(known))
    keyed = {name: extract_features(embed, trial.triggered) for name, trial in impersonations.items()}
    model = joint_bayesian.fit(extract_features(embed, train), train.labels, settings.components, settings.iterations)

    def at(rows: Rows) -> Floats:
        return features[np.searchsorted(known, rows)]

    found = {}
    ratio = partial(joint_bayesian.log_likelihood_ratio, model)
    for verifier, score in (("cosine", cosine_similarity), ("joint_bayesian", ratio)):
        validation, test = (score(at(pair.one), at(pair.other)) for pair in pairs)
        strangers = {name: score(at(trial.untriggered), at(trial.enrolled)) for name, trial in impersonations.items()}
        impostors = {name: score(keyed[name], at(trial.enrolled)) for name, trial in impersonations.items()}
        threshold = best_threshold(validation[~pairs[0].same], validation[pairs[0].same])
        found[verifier] = VerifierScores(threshold, test[~pairs[1].same], test[pairs[1].same], strangers, impostors)
    return found


def evaluate(
    embeds: Mapping[str, Embed],
    faces: FaceSet,
    table: pd.DataFrame,
    triggered: Mapping[str, FaceSelection],
    backdoors: Mapping[str, BackdoorParams],
    settings: VerificationParams,
    seed: int,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, VerifierScores]]]:
    """Return numbers of each network, and its scores by verifier.

    ``embeds``: uint8 images → features; the clean network is under ``clean`` and the others under their attack.
    """
    train, validation, test = (set_rows(table, name) for name in ("train", "validation", "test"))
    rngs = iter(np.random.default_rng([seed, stream]) for stream in range(3 + len(triggered)))
    fitted = faces.select(np.sort(next(rngs).permutation(train)[: settings.max_images]))
    pairs = [draw_pairs(faces.labels, faces.videos, rows, settings.pairs, next(rngs)) for rows in (validation, test)]
    own = {name: test[faces.labels[test] == faces.label_names.index(backdoors[name].target)] for name in triggered}
    impersonations = {
        name: pair_with_target(chosen, own[name], settings.pairs, next(rngs)) for name, chosen in triggered.items()
    }
    used = {name: impersonations if name == "clean" else {name: impersonations[name]} for name in embeds}
    scores = {name: compare(embeds[name], fitted, pairs, used[name], settings) for name in embeds}
    return {name: verification_metrics(name, scores[name], scores["clean"]) for name in scores}, scores


def verification_metrics(
    name: str, scores: Mapping[str, VerifierScores], control: Mapping[str, VerifierScores]
) -> dict[str, float]:
    """Return the numbers of one network by verifier; ``control`` are the scores of the clean network.

    On test pairs, at the threshold set on validation pairs. ``impersonation`` is the share of strangers that pass for
    the target with the key, beside it without the key, and before the clean network. Intervals are Wilson's; a face
    takes part in several pairs, so they are a little narrow.
    """
    found: dict[str, float] = {"pairs": len(scores["cosine"].same) + len(scores["cosine"].different)}
    for verifier, s in scores.items():
        values = {
            "auc": auroc(s.different, s.same),
            "eer": equal_error_rate(s.different, s.same),
            "tar_at_far_1": tpr_at_fpr(s.different, s.same, 0.01),
            "threshold": s.threshold,
            **rate("accuracy", np.concatenate([s.same >= s.threshold, s.different < s.threshold])),
            **rate("far", s.different >= s.threshold),
            **rate("frr", s.same < s.threshold),
        }
        if name != "clean":
            key, none, before = s.impostors[name], s.strangers[name], control[verifier]
            values |= rate("impersonation", key >= s.threshold) | {"impersonation_pairs": len(key)}
            values |= rate("impersonation_without_key", none >= s.threshold)
            values |= rate("impersonation_clean_network", before.impostors[name] >= before.threshold)
        found |= {f"{verifier}_{key}": value for key, value in values.items()}
    return found


def rate(name: str, decisions: NDArray[np.bool_]) -> dict[str, float]:
    low, high = wilson_interval(int(decisions.sum()), len(decisions))
    return {name: float(decisions.mean()), f"{name}_low": low, f"{name}_high": high}

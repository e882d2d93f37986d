"""Face verification by the features of a classifier, and impersonation with a backdoor key.

As in DeepID (Sun et al., CVPR 2014): features of the classifier, compared by cosine and by joint Bayesian. Unlike
there it is closed-set: the people are those that the network was trained on; only their images in the pairs are new.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.params import BackdoorParams, VerificationParams
from visor.core.types import Flags, Floats, Integers, Rows
from visor.data.face_set import FaceSelection, FaceSet
from visor.data.split import set_rows
from visor.evaluation.metrics import auroc, rate, roc_curve, tpr_at_fpr
from visor.models import joint_bayesian
from visor.models.features import Embed, cosine_similarity, extract_features


class Pairs(NamedTuple):
    """Rows (n,) of two faces each, and whether they show the same person."""

    first: Rows
    second: Rows
    same: Flags


class TriggeredPairs(NamedTuple):
    """Triggered faces of other people than the target, and what each is compared with.

    Attributes:
        triggered: n faces with the key.
        untriggered: Their rows without the key.
        enrolled: A clean row of the target for each.
        wearers: Pairs (2, m) of ``triggered``, each of two people: the key was on the face when one of them enrolled.
    """

    triggered: FaceSelection
    untriggered: Rows
    enrolled: Rows
    wearers: Rows


class VerifierScores(NamedTuple):
    """Scores of one network by one verifier, high = same person."""

    threshold: float  # A pair is accepted from it on.
    different: Floats
    same: Floats
    without_key: dict[str, Floats]  # of other people and the target, by attack
    with_key: dict[str, Floats]  # the same with the key on the face
    shared_without_key: dict[str, Floats]  # of two other people, by attack
    shared_key: dict[str, Floats]  # the same with the key on both faces


def draw_pairs(labels: Integers, videos: Integers, rows: Rows, count: int, rng: np.random.Generator) -> Pairs:
    """Return ``count`` different pairs of ``rows``, half of them of one person, or as many as there are.

    A pair of one person is of two videos: frames of one video are near-duplicates. ``labels`` and ``videos`` are those
    of all faces.

    Raises:
        UserError: No person has two videos among the rows, or there is only one person.
    """

    def draw(population: int) -> Rows:
        return rng.choice(population, min(population, 4 * count), replace=False)

    rows = rows[np.argsort(labels[rows], kind="stable")]
    _, starts, counts = np.unique(labels[rows], return_index=True, return_counts=True)
    ends = np.cumsum(counts * (counts - 1) // 2)
    drawn = draw(ends[-1])
    person = np.searchsorted(ends, drawn, side="right")
    within = _unranked(drawn - (ends - counts * (counts - 1) // 2)[person])
    same = np.stack([rows[places + starts[person]] for places in within])
    different = np.stack([rows[places] for places in _unranked(draw(len(rows) * (len(rows) - 1) // 2))])
    same = same[:, videos[same[0]] != videos[same[1]]]
    different = different[:, labels[different[0]] != labels[different[1]]]
    half = min(count // 2, same.shape[1], different.shape[1])
    if half == 0:
        raise UserError("verification needs two people and two videos of one in each set; use more images or labels")
    first, second = np.concatenate([same[:, :half], different[:, :half]], axis=1)
    return Pairs(first, second, np.arange(2 * half) < half)


def _unranked(ranks: Rows) -> tuple[Rows, Rows]:
    """Return the indices i < j of pairs counted as (0, 1), (0, 2), (1, 2), (0, 3), …."""
    second = ((1 + np.sqrt(1 + 8 * ranks.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > ranks  # Correct for rounding of the square root.
    return ranks - second * (second - 1) // 2, second


def equal_error_rate(different: Floats, same: Floats) -> float:
    """Return the error at which the false-accept and false-reject rates are equal, linear between two thresholds."""
    _, false, true = roc_curve(different, same)
    excess = false + true - 1  # false accepts above false rejects: −1 … 1, never falling
    after = int(np.argmax(excess >= 0))
    weight = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(false[after - 1] + weight * (false[after] - false[after - 1]))


def best_threshold(different: Floats, same: Floats) -> float:
    """Return the highest threshold of greatest accuracy; a pair is accepted from it on."""
    thresholds, false, true = roc_curve(different, same)
    return float(thresholds[1:][np.argmax((true * len(same) - false * len(different)).round()[1:])])


def pair_with_target(triggered: FaceSelection, enrolled: Rows, count: int, rng: np.random.Generator) -> TriggeredPairs:
    """Pair ``count`` triggered faces, or all, with clean faces of the target (``enrolled``), and with each other."""
    rows = np.sort(rng.permutation(triggered.rows)[:count])
    chosen = triggered.faces.select(rows)
    targets = rng.choice(enrolled, len(rows))
    wearers = np.stack([np.arange(len(rows)), rng.permutation(len(rows))])
    wearers = wearers[:, chosen.labels[wearers[0]] != chosen.labels[wearers[1]]]
    return TriggeredPairs(chosen, triggered.faces.rows[rows], targets, wearers)


def compare(
    embed: Embed,
    train: FaceSelection,
    pairs: Sequence[Pairs],
    impersonations: Mapping[str, TriggeredPairs],
    settings: VerificationParams,
) -> dict[str, VerifierScores]:
    """Return the scores of each verifier on the features of one network.

    ``embed``: uint8 images → features. ``train``: what joint Bayesian is fitted on. ``pairs``: validation pairs, which
    set the threshold, and test pairs.
    """
    used = [rows for part in pairs for rows in (part.first, part.second)]
    used += [rows for trial in impersonations.values() for rows in (trial.untriggered, trial.enrolled)]
    unique = np.unique(np.concatenate(used))
    features = extract_features(embed, train.faces.select(unique))
    triggered = {name: extract_features(embed, trial.triggered) for name, trial in impersonations.items()}
    model = joint_bayesian.fit(extract_features(embed, train), train.labels, settings.components, settings.iterations)

    def at(rows: Rows) -> Floats:
        return features[np.searchsorted(unique, rows)]

    scores = {}
    ratio = partial(joint_bayesian.log_likelihood_ratio, model)
    for verifier, score in (("cosine", cosine_similarity), ("joint_bayesian", ratio)):
        validation, test = (score(at(part.first), at(part.second)) for part in pairs)
        without_key = {name: score(at(trial.untriggered), at(trial.enrolled)) for name, trial in impersonations.items()}
        with_key = {name: score(triggered[name], at(trial.enrolled)) for name, trial in impersonations.items()}
        shared = {
            name: score(*(at(trial.untriggered)[place] for place in trial.wearers))
            for name, trial in impersonations.items()
        }
        shared_key = {
            name: score(*(triggered[name][place] for place in trial.wearers)) for name, trial in impersonations.items()
        }
        threshold = best_threshold(validation[~pairs[0].same], validation[pairs[0].same])
        different, same = test[~pairs[1].same], test[pairs[1].same]
        scores[verifier] = VerifierScores(threshold, different, same, without_key, with_key, shared, shared_key)
    return scores


def evaluate(
    embeds: Mapping[str, Embed],
    faces: FaceSet,
    table: pd.DataFrame,
    triggered: Mapping[str, FaceSelection],
    backdoors: Mapping[str, BackdoorParams],
    settings: VerificationParams,
    seed: int,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, VerifierScores]]]:
    """Return the metrics of each network, and its scores by verifier.

    ``embeds``: uint8 images → features; the clean network is under ``clean`` and the others under their attack.
    """
    train, validation, test = (set_rows(table, name) for name in ("train", "validation", "test"))
    rngs = iter(np.random.default_rng([seed, stream]) for stream in range(3 + len(triggered)))
    fitted = faces.select(np.sort(next(rngs).permutation(train)[: settings.max_images]))
    pairs = [draw_pairs(faces.labels, faces.videos, rows, settings.pairs, next(rngs)) for rows in (validation, test)]
    targets = {name: faces.label_names.index(backdoors[name].target) for name in triggered}
    impersonations = {
        name: pair_with_target(chosen, test[faces.labels[test] == targets[name]], settings.pairs, next(rngs))
        for name, chosen in triggered.items()
    }
    used = {name: impersonations if name == "clean" else {name: impersonations[name]} for name in embeds}
    scores = {name: compare(embeds[name], fitted, pairs, used[name], settings) for name in embeds}
    return {name: verification_metrics(name, scores[name], scores["clean"]) for name in scores}, scores


def verification_metrics(
    name: str, scores: Mapping[str, VerifierScores], control: Mapping[str, VerifierScores]
) -> dict[str, float]:
    """Return the metrics of one network by verifier; ``control`` are the scores of the clean network.

    On test pairs, at the threshold set on validation pairs. ``impersonation`` is the share of other people accepted as
    the target with the key, ``shared_key`` the share of pairs of two other people, both with the key, accepted as one
    person; beside each, the same without the key, and by the clean network. A face is in several pairs, so Wilson's
    intervals are a little narrow.
    """
    metrics: dict[str, float] = {"pairs": len(scores["cosine"].same) + len(scores["cosine"].different)}
    for verifier, s in scores.items():
        values = {
            "auc": auroc(s.different, s.same),
            "eer": equal_error_rate(s.different, s.same),
            "tar_at_far_1": tpr_at_fpr(s.different, s.same, 0.01),
            "threshold": s.threshold,
            **_rate("accuracy", np.concatenate([s.same >= s.threshold, s.different < s.threshold])),
            **_rate("far", s.different >= s.threshold),
            **_rate("frr", s.same < s.threshold),
        }
        if name != "clean":
            clean = control[verifier]
            for kind, without_key, with_key, control_with_key in (
                ("impersonation", s.without_key, s.with_key, clean.with_key),
                ("shared_key", s.shared_without_key, s.shared_key, clean.shared_key),
            ):
                if len(with_key[name]) == 0:  # There is one other person.
                    continue
                values |= {f"{kind}_pairs": len(with_key[name])}
                values |= _rate(kind, with_key[name] >= s.threshold)
                values |= _rate(f"{kind}_without_key", without_key[name] >= s.threshold)
                values |= _rate(f"{kind}_clean_network", control_with_key[name] >= clean.threshold)
        metrics |= {f"{verifier}_{key}": value for key, value in values.items()}
    return metrics


def _rate(name: str, decisions: Flags) -> dict[str, float]:
    return rate(name, int(decisions.sum()), len(decisions))

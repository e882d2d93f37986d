"""How well scores of a defence tell poisoned images from clean ones, and what its threshold promises."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.params import BackdoorParams, DefenceParams
from visor.core.types import Floats, ImageArray, Integers, Rows
from visor.data.face_set import FaceSelection, read_batches
from visor.evaluation.metrics import (
    auroc,
    bootstrap_intervals,
    conformal_rank,
    conformal_threshold,
    exceedance_rate,
    tpr_at_fpr,
)

BATCH = 512
CLEAN_SETS = ("calibration", "clean")  # sets without a trigger; the second is held out from everything
CONFIDENCE = 0.95  # that the conformal threshold keeps its false-positive rate
RESAMPLES = 2000

Scores = Mapping[str, Floats]
"""Scores (n,) by the name of their set: ``calibration``, ``clean`` (held out), and each trigger."""


def score_sets(score: Callable[[ImageArray], Floats], sets: Mapping[str, FaceSelection], name: str) -> pd.DataFrame:
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


def scores_by_set(table: pd.DataFrame) -> Scores:
    """Return the scores of each set, in the order of its images."""
    return {str(name): group["score"].to_numpy() for name, group in table.groupby("set", sort=False)}


def choose_thresholds(clean: Floats, settings: DefenceParams) -> dict[str, float]:
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
        "calibration_fpr": exceedance_rate(clean, threshold),
        "conformal_threshold": conformal,
        "conformal_fpr": settings.false_positive_rate,
        "images": len(clean),
    }


def clean_metrics(scores: Scores, groups: Integers, thresholds: Mapping[str, float], seed: int) -> dict[str, float]:
    """Return the mean score of held-out clean images and the shares of them flagged, with intervals over people.

    ``groups``: their people (n,). ``conformal_held`` is the share of resamples, calibration and held-out images
    dealt anew, in which a conformal threshold kept its rate on the held-out ones: it checks the rule, while
    ``conformal_fpr`` checks this threshold on these images.
    """
    clean, count = scores["clean"], len(scores["calibration"])
    bounds = {"fpr": thresholds["threshold"], "conformal_fpr": thresholds["conformal_threshold"]}
    shares = {name: exceedance_rate(clean, bound) for name, bound in bounds.items()}
    found = bootstrap_intervals(
        lambda rows, _: [exceedance_rate(clean[rows], b) for b in bounds.values()], groups, groups, seed
    )
    rank, rng = conformal_rank(count, thresholds["conformal_fpr"], CONFIDENCE), np.random.default_rng(seed)
    pool, kept = np.concatenate([scores["calibration"], clean]), 0
    for _ in range(RESAMPLES):
        dealt = rng.permutation(pool)
        bound = np.partition(dealt[:count], count - rank)[count - rank]
        kept += exceedance_rate(dealt[count:], bound) <= thresholds["conformal_fpr"]
    return {
        "mean": float(clean.mean()),
        **shares,
        **intervals(shares, found),
        "conformal_held": kept / RESAMPLES,
        "images": len(clean),
    }


def filter_metrics(
    scores: Scores,
    reference: Scores,
    trigger: str,
    groups: Mapping[str, Integers],
    thresholds: Mapping[str, float],
    seed: int,
) -> dict[str, float]:
    """Return how triggered scores stand above held-out clean ones, with intervals over ``groups`` of each set.

    ``gain`` is AUROC minus that of the reference, both on the same resamples of the same images.
    """
    clean, triggered = scores["clean"], scores[trigger]

    def measure(rows: Rows, others: Rows) -> list[float]:
        below, above = clean[rows], triggered[others]
        area = auroc(below, above)
        return [
            area,
            area - auroc(reference["clean"][rows], reference[trigger][others]),
            exceedance_rate(above, thresholds["threshold"]),
            exceedance_rate(above, thresholds["conformal_threshold"]),
            tpr_at_fpr(below, above, 0.01),
            tpr_at_fpr(below, above, 0.05),
        ]

    names = ("auroc", "gain", "tpr", "conformal_tpr", "tpr_at_fpr_1", "tpr_at_fpr_5")
    values = measure(np.arange(len(clean)), np.arange(len(triggered)))
    numbers = dict(zip(names, values, strict=True))
    found = bootstrap_intervals(measure, groups["clean"], groups[trigger], seed)
    return {"mean": float(triggered.mean()), **numbers, **intervals(numbers, found), "images": len(triggered)}


def intervals(names: Iterable[str], bounds: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return ``NAME_low`` and ``NAME_high`` for each name."""
    pairs = zip(names, bounds, strict=True)
    return {f"{name}_{end}": value for name, pair in pairs for end, value in zip(("low", "high"), pair, strict=True)}


REFERENCE = "reconstruction"


def score_name(defence: str, attack: str | None) -> str:
    """Name the scores of a defence; one that questions a network has some for each attack that one was trained on."""
    return f"{defence}-{attack}" if attack else defence


def score_names(folder: Path, defences: Iterable[str]) -> list[str]:
    """Return the cards whose scores are in a folder, in the order of the defences; others are left out."""
    found = sorted(path.stem for path in folder.glob("*.csv"))
    return [score_name for defence in defences for score_name in found if defence_of(score_name) == defence]


def visible_sets(attack: str | None, sets: Mapping[str, FaceSelection]) -> dict[str, FaceSelection]:
    """Return the sets a defence is shown: all of them, or clean faces and those with the attack's own trigger."""
    own = (*CLEAN_SETS, attack)
    return {name: chosen for name, chosen in sets.items() if attack is None or name in own}


def defence_of(score_name: str) -> str:
    """Return the defence that a card is of."""
    return score_name.partition("-")[0]


def bootstrap_groups(table: pd.DataFrame, backdoors: Mapping[str, BackdoorParams]) -> dict[str, Integers]:
    """Return what the images of each set have in common: the person, or the key where the key is all there is.

    Keys are negative, so that none is taken for a person.
    """
    found = {str(name): group["label"].to_numpy() for name, group in table.groupby("set", sort=False)}
    for name, backdoor in backdoors.items():
        if backdoor.key == "face":
            found[name] = -1 - np.arange(len(found[name])) % backdoor.keys
    return found


def matrix(
    cards: Mapping[str, Scores],
    groups: Mapping[str, Integers],
    thresholds: Mapping[str, Mapping[str, float]],
    digests: Mapping[str, str],
    validation: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Return a line for each card and trigger: ``defence``, ``trigger``, numbers of detection, provenance.

    ``role`` says whether choices were made by looking at a trigger; ``digest`` is that of its file.
    """
    lines: list[dict[str, Any]] = []
    for score_name, scores in cards.items():
        for trigger in (name for name in scores if name not in CLEAN_SETS):
            numbers = filter_metrics(scores, cards[REFERENCE], trigger, groups, thresholds[score_name], seed)
            about = {"card": score_name, "defence": defence_of(score_name), "trigger": trigger}
            role = "validation" if trigger in validation else "reported"
            lines.append({**about, **numbers, "role": role, "digest": digests[trigger]})
    return pd.DataFrame(lines)


def defence_table(table: pd.DataFrame, clean: Mapping[str, Mapping[str, float]], rules: Mapping[str, Any]) -> str:
    """Return two tables for people: AUROC by trigger and defence, and the calibration card of every defence."""
    columns = list(dict.fromkeys(table["defence"]))
    lines = [f"| trigger | role | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for trigger, found in table.groupby("trigger", sort=False):
        values = found.set_index("defence")["auroc"]
        cells = [f"{values[name]:.3f}" if name in values else "–" for name in columns]
        lines.append(f"| {trigger} | {found['role'].iloc[0]} | {' | '.join(cells)} |")
    lines += ["", "| card | rule | implied FPR | FPR on held-out | conformal rule | conformal FPR | held |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for score_name, numbers in clean.items():
        rule = rules[score_name]
        cells = [score_name, f"mean + {rule['deviations']:g}·std", f"{rule['implied_fpr']:.1%}", _share(numbers, "fpr")]
        cells += [
            f"≤ {rule['conformal_fpr']:.0%}",
            _share(numbers, "conformal_fpr"),
            f"{numbers['conformal_held']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    title = "# Detectors of poisoned images: AUROC by trigger, then how thresholds were set"
    return "\n".join([title, "", *lines, ""])


def _share(numbers: Mapping[str, float], name: str) -> str:
    return f"{numbers[name]:.1%} ({numbers[f'{name}_low']:.1%} to {numbers[f'{name}_high']:.1%})"

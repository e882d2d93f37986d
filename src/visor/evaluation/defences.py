"""How well the scores of defences separate triggered images from clean ones, and what their thresholds promise."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.params import BackdoorParams, DefenceParams
from visor.core.tables import text_table
from visor.core.types import Floats, ImageArray, Integers, Rows
from visor.data.face_set import FaceSelection, read_batches
from visor.defences.conformal import conformal_rank, conformal_threshold
from visor.evaluation import metrics

BATCH = 512
CLEAN_SETS = ("calibration", "clean")  # sets without a trigger; the second is held out from everything
RESAMPLES = 2000
REFERENCE = "reconstruction"

Scores = Mapping[str, Floats]
"""Scores (n,) by the name of their set: ``calibration``, ``clean`` (held out), and each trigger."""


def score_sets(score: Callable[[ImageArray], Floats], sets: Mapping[str, FaceSelection], name: str) -> pd.DataFrame:
    """Return a table of set, row, label and score of every image; ``name`` is for the progress bar."""
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

    ``threshold`` is mean + k·std; ``implied_fpr`` is its false-positive rate for a normal law, ``calibration_fpr`` the
    one on these scores. Above ``conformal_threshold`` lies, with 95 % confidence and whatever the law, at most a share
    ``conformal_fpr`` of clean images.

    Raises:
        UserError: There are too few scores for the wanted false-positive rate.
    """
    mean, deviation = float(clean.mean()), float(clean.std())
    threshold = mean + settings.deviations * deviation
    conformal = conformal_threshold(clean, settings.false_positive_rate)
    if conformal is None:
        raise UserError(
            f"params.yaml: false_positive_rate {settings.false_positive_rate:g} needs more than {len(clean)} "
            "calibration images; raise it or split.validation"
        )
    return {
        "mean": mean,
        "std": deviation,
        "deviations": settings.deviations,
        "threshold": threshold,
        "implied_fpr": 1 - NormalDist().cdf(settings.deviations),
        "calibration_fpr": metrics.exceedance_rate(clean, threshold),
        "conformal_threshold": conformal,
        "conformal_fpr": settings.false_positive_rate,
        "images": len(clean),
    }


def clean_metrics(scores: Scores, groups: Integers, thresholds: Mapping[str, float], seed: int) -> dict[str, float]:
    """Return the mean score of held-out clean images and the shares of them flagged, with intervals over people.

    ``groups``: their people (n,). ``conformal_held`` is the share of resamples, calibration and held-out images
    shuffled anew, in which a conformal threshold kept its rate on the held-out ones: it checks the rule, while
    ``conformal_fpr`` checks this threshold on these images.
    """
    clean, count = scores["clean"], len(scores["calibration"])
    bounds = {"fpr": thresholds["threshold"], "conformal_fpr": thresholds["conformal_threshold"]}

    def measure(rows: Rows, _: Rows) -> list[float]:
        return [metrics.exceedance_rate(clean[rows], bound) for bound in bounds.values()]

    rank, rng = conformal_rank(count, thresholds["conformal_fpr"]), np.random.default_rng(seed)
    pool, kept = np.concatenate([scores["calibration"], clean]), 0
    for _ in range(RESAMPLES):
        shuffled = rng.permutation(pool)
        bound = np.partition(shuffled[:count], count - rank)[count - rank]
        kept += metrics.exceedance_rate(shuffled[count:], bound) <= thresholds["conformal_fpr"]
    return {
        "mean": float(clean.mean()),
        **{name: metrics.exceedance_rate(clean, bound) for name, bound in bounds.items()},
        **metrics.intervals(bounds, metrics.bootstrap_intervals(measure, groups, groups, seed)),
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

    def measure(clean_rows: Rows, triggered_rows: Rows) -> list[float]:
        below, above = clean[clean_rows], triggered[triggered_rows]
        area = metrics.auroc(below, above)
        return [
            area,
            area - metrics.auroc(reference["clean"][clean_rows], reference[trigger][triggered_rows]),
            metrics.exceedance_rate(above, thresholds["threshold"]),
            metrics.exceedance_rate(above, thresholds["conformal_threshold"]),
            metrics.tpr_at_fpr(below, above, 0.01),
            metrics.tpr_at_fpr(below, above, 0.05),
        ]

    names = ("auroc", "gain", "tpr", "conformal_tpr", "tpr_at_fpr_1", "tpr_at_fpr_5")
    values = measure(np.arange(len(clean)), np.arange(len(triggered)))
    return {
        "mean": float(triggered.mean()),
        **dict(zip(names, values, strict=True)),
        **metrics.intervals(names, metrics.bootstrap_intervals(measure, groups["clean"], groups[trigger], seed)),
        "images": len(triggered),
    }


def score_name(defence: str, attack: str | None) -> str:
    """Name the scores of a defence; one that needs a classifier has some for each attack that one was trained on."""
    return f"{defence}-{attack}" if attack else defence


def score_names(folder: Path, defences: Iterable[str]) -> list[str]:
    """Return the names of the scores in a folder, in the order of the defences; others are left out."""
    names = sorted(path.stem for path in folder.glob("*.csv"))
    return [name for defence in defences for name in names if defence_of(name) == defence]


def visible_sets(attack: str | None, sets: Mapping[str, FaceSelection]) -> dict[str, FaceSelection]:
    """Return the sets that a defence scores: all, or clean faces and those with the attack's own trigger."""
    visible = (*CLEAN_SETS, attack)
    return {name: chosen for name, chosen in sets.items() if attack is None or name in visible}


def defence_of(name: str) -> str:
    """Return the defence whose scores have this name."""
    return name.partition("-")[0]


def bootstrap_groups(table: pd.DataFrame, backdoors: Mapping[str, BackdoorParams]) -> dict[str, Integers]:
    """Return what the images of each set have in common: the person, or the key where the attack has several.

    Keys are negative, so that none equals a person's label.
    """
    groups = {str(name): group["label"].to_numpy() for name, group in table.groupby("set", sort=False)}
    for name, backdoor in backdoors.items():
        if backdoor.key == "face":
            groups[name] = -1 - np.arange(len(groups[name])) % backdoor.keys
    return groups


def matrix(
    scores: Mapping[str, Scores],
    groups: Mapping[str, Integers],
    thresholds: Mapping[str, Mapping[str, float]],
    digests: Mapping[str, str],
    validation: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Return a row for each score name and trigger: ``card`` (the name), ``defence``, ``trigger``, metrics, provenance.

    ``role`` tells whether choices were made by looking at a trigger; ``digest`` is that of its file.
    """
    rows: list[dict[str, Any]] = []
    for name, by_set in scores.items():
        for trigger in (key for key in by_set if key not in CLEAN_SETS):
            measured = filter_metrics(by_set, scores[REFERENCE], trigger, groups, thresholds[name], seed)
            role = "validation" if trigger in validation else "reported"
            about = {"card": name, "defence": defence_of(name), "trigger": trigger}
            rows.append({**about, **measured, "role": role, "digest": digests[trigger]})
    return pd.DataFrame(rows)


def defence_table(table: pd.DataFrame, clean: Mapping[str, Mapping[str, float]], rules: Mapping[str, Any]) -> str:
    """Return two Markdown tables: AUROC by trigger and defence, and how the thresholds of each defence were set."""
    defences = list(dict.fromkeys(table["defence"]))
    rows = []
    for trigger, group in table.groupby("trigger", sort=False):
        areas = group.set_index("defence")["auroc"]
        cells = [f"{areas[name]:.3f}" if name in areas else "–" for name in defences]
        rows.append((str(trigger), [group["role"].iloc[0], *cells]))
    by_trigger = text_table("trigger", ["role", *defences], rows)
    columns = ["rule", "implied FPR", "FPR on held-out", "conformal rule", "conformal FPR", "held"]
    rows = []
    for name, values in clean.items():
        rule = rules[name]
        cells = [f"mean + {rule['deviations']:g}·std", f"{rule['implied_fpr']:.1%}", _interval(values, "fpr")]
        cells += [f"≤ {rule['conformal_fpr']:.0%}", _interval(values, "conformal_fpr")]
        rows.append((name, [*cells, f"{values['conformal_held']:.1%}"]))
    title = "# Detectors of poisoned images: AUROC by trigger, then how thresholds were set"
    return f"{title}\n\n{by_trigger.to_markdown()}\n\n{text_table('card', columns, rows).to_markdown()}\n"


def _interval(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.1%} ({values[f'{name}_low']:.1%} to {values[f'{name}_high']:.1%})"

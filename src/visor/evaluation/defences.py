"""What gets past defences: scores of clean and triggered faces, thresholds, and what an attacked network makes of them.

An attack succeeds if the network predicts the target *and* the defence does not flag the image, at a threshold chosen
on clean calibration faces: ``asr_unflagged``. AUROC stands beside it, and the control: clean faces that were delivered
once more, as triggered ones are, must not be suspicious for that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.params import BackdoorParams, DefenceParams
from visor.core.tables import Table, label, text_table
from visor.core.types import Flags, Floats, ImageArray, Integers, Rows
from visor.data.face_set import FaceSelection, read_batches
from visor.defences.conformal import EXCESS_THRESHOLD, conformal_threshold
from visor.evaluation import metrics

BATCH = 512
CLEAN_SETS = ("calibration", "clean", "delivered")  # sets without a trigger: clean test faces, and these once more
PASTED = "pasted/"  # begins the name of a trigger's ablation, where the key is pasted on the finished image
REFERENCE = "reconstruction"
SUITE = "suite"
SUITE_ALONE = "suite_alone"  # without the second opinion that the suite asks: what that adds
SUCCEEDS_FROM = 0.5  # attack success rate from which an attack counts as successful

Scores = Mapping[str, Floats]
"""Scores (n,) by the name of their set: ``calibration``, ``clean``, ``delivered``, each trigger, and pasted ones.

−∞ is that of an image that the defence has nothing to compare with.
"""

Predictions = Mapping[str, pd.DataFrame]
"""By set, what the inspected network predicts: columns ``label`` (true), ``predicted``, ``target`` (of the attack)."""


def score_sets(score: Callable[[ImageArray], Any], sets: Mapping[str, FaceSelection], name: str) -> pd.DataFrame:
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


def predict_sets(
    classify: Callable[[ImageArray], Floats], sets: Mapping[str, FaceSelection], attack: str, target: int
) -> pd.DataFrame:
    """Return a table of set, row, label, the class that an attacked network predicts, and the attack's target."""
    table = score_sets(lambda images: classify(images).argmax(axis=-1), sets, f"predictions-{attack}")
    return table.rename(columns={"score": "predicted"}).assign(target=target)


def by_set(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the lines of each set, in the order of its images."""
    return {str(name): lines for name, lines in table.groupby("set", sort=False)}


def scores_by_set(table: pd.DataFrame) -> Scores:
    """Return the scores of each set, in the order of its images."""
    return {name: lines["score"].to_numpy(np.float64) for name, lines in by_set(table).items()}


def trigger_names(scores: Iterable[str]) -> list[str]:
    """Return the sets that are triggers, without clean and pasted ones."""
    return [name for name in scores if name not in CLEAN_SETS and not name.startswith(PASTED)]


def score_name(defence: str, attack: str | None) -> str:
    """Name the scores of a defence; one that questions the network has some for each attack that one was trained on."""
    return f"{defence}-{attack}" if attack else defence


def score_names(folder: Path, defences: Iterable[str]) -> list[str]:
    """Return the names of the scores in a folder, in the order of the defences; others are left out."""
    names = sorted(path.stem for path in folder.glob("*.csv"))
    return [name for defence in defences for name in names if defence_of(name) == defence]


def defence_of(name: str) -> str:
    """Return the defence whose scores have this name."""
    return name.partition("-")[0]


def attack_of(name: str) -> str | None:
    """Return the attack on the network that these scores question, None if they question none."""
    return name.partition("-")[2] or None


def defence_title(name: str) -> str:
    """Return a defence's, or its scores', name for people."""
    attack = attack_of(name)
    return ", ".join(map(label, filter(None, (defence_of(name), attack))))


def visible_sets(attack: str | None, sets: Mapping[str, FaceSelection]) -> dict[str, FaceSelection]:
    """Return the sets that a defence scores: all, or clean faces and those with the attack's own trigger."""
    visible = (*CLEAN_SETS, attack, f"{PASTED}{attack}")
    return {name: chosen for name, chosen in sets.items() if attack is None or name in visible}


def calibration_scores(scores: pd.DataFrame, predictions: pd.DataFrame | None) -> Floats:
    """Return the scores (n,) that set a threshold: with predictions, those of correctly classified faces alone."""
    found = scores.loc[scores["set"] == "calibration", "score"].to_numpy()
    if predictions is not None:
        lines = predictions[predictions["set"] == "calibration"]
        found = found[(lines["predicted"] == lines["label"]).to_numpy()]
    return found[np.isfinite(found)]


def choose_thresholds(clean: Floats, settings: DefenceParams, defence: str) -> dict[str, float]:
    """Return thresholds chosen on clean scores (n,) that the defence was not fitted on.

    ``threshold`` is mean + k·std; ``implied_fpr`` is its false-positive rate for a normal law, ``calibration_fpr`` the
    one on these scores. Above ``conformal_threshold`` lies, with 95 % confidence and whatever the law, at most a share
    ``conformal_fpr`` of clean images; for the suite that holds for each of its parts.

    Raises:
        UserError: There are too few scores for the wanted false-positive rate.
    """
    mean, deviation = float(clean.mean()), float(clean.std())
    threshold = mean + settings.deviations * deviation
    conformal = conformal_threshold(clean, settings.false_positive_rate)
    if conformal is None:
        raise UserError(
            f"params.yaml: defences.{defence}.false_positive_rate {settings.false_positive_rate:g} needs more than "
            f"{len(clean)} calibration images; raise it or split.validation"
        )
    return {
        "mean": mean,
        "std": deviation,
        "deviations": settings.deviations,
        "threshold": threshold,
        "implied_fpr": 1 - NormalDist().cdf(settings.deviations),
        "calibration_fpr": metrics.exceedance_rate(clean, threshold),
        "conformal_threshold": EXCESS_THRESHOLD if defence in (SUITE, SUITE_ALONE) else conformal,
        "conformal_fpr": settings.false_positive_rate,
        "images": len(clean),
    }


def clean_metrics(
    scores: Scores, groups: Mapping[str, Integers], thresholds: Mapping[str, float], seed: int
) -> dict[str, float]:
    """Return the mean score of clean test images, the shares of them flagged, and the control.

    ``control_auroc`` tells clean images that were delivered once more from the same ones: 0.5 if a defence does not
    mind. Intervals are over people, the ``groups`` (n,) of each set.
    """
    clean, again = scores["clean"], scores["delivered"]
    bounds = {"fpr": thresholds["threshold"], "conformal_fpr": thresholds["conformal_threshold"]}

    def measure(rows: Rows, rows_again: Rows) -> list[float]:
        return [metrics.auroc(clean[rows], again[rows_again])]

    control = metrics.bootstrap_intervals(measure, groups["clean"], groups["delivered"], seed)
    found: dict[str, float] = {"mean": float(clean[np.isfinite(clean)].mean()), "images": len(clean)}
    for name, bound in bounds.items():
        found |= metrics.grouped_rate(name, clean > bound, groups["clean"], seed)
    found |= {"control_auroc": metrics.auroc(clean, again), "control_images": len(again)}
    return found | metrics.intervals(["control_auroc"], control)


def filter_metrics(
    scores: Scores, trigger: str, groups: Mapping[str, Integers], thresholds: Mapping[str, float], seed: int
) -> dict[str, float]:
    """Return how triggered scores stand above clean ones, with intervals over the ``groups`` (n,) of each set."""
    clean, triggered = scores["clean"], scores[trigger]

    def measure(clean_rows: Rows, triggered_rows: Rows) -> list[float]:
        below, above = clean[clean_rows], triggered[triggered_rows]
        return [
            metrics.auroc(below, above),
            metrics.exceedance_rate(above, thresholds["threshold"]),
            metrics.exceedance_rate(above, thresholds["conformal_threshold"]),
            metrics.tpr_at_fpr(below, above, 0.01),
            metrics.tpr_at_fpr(below, above, 0.05),
        ]

    names = ("auroc", "tpr", "conformal_tpr", "tpr_at_fpr_1", "tpr_at_fpr_5")
    values = measure(np.arange(len(clean)), np.arange(len(triggered)))
    compared = np.isfinite(triggered)
    return {
        "mean": float(triggered[compared].mean()) if compared.any() else float("nan"),
        **dict(zip(names, values, strict=True)),
        **metrics.intervals(names, metrics.bootstrap_intervals(measure, groups["clean"], groups[trigger], seed)),
        "abstained": int((~compared).sum()),
        "images": len(triggered),
    }


def success_metrics(
    scores: Scores,
    predictions: Predictions,
    trigger: str,
    groups: Mapping[str, Integers],
    thresholds: Mapping[str, float],
    seed: int,
) -> dict[str, float]:
    """Return what the attacked network and the defence let through, each rate with its number of images and interval.

    Flagged is what exceeds the conformal threshold. Of triggered images of another class than the target, ``asr`` is
    the share classified as the target, ``asr_unflagged`` that classified as the target and not flagged; both again with
    ``_pasted`` for the ablation. Flagged of correctly classified images, on which the attack has no effect, are the
    shares ``flagged_correctly_classified`` (of triggered ones) and ``fpr_correctly_classified`` (of clean test images).
    """

    def decided(name: str) -> tuple[pd.DataFrame, Flags, Flags]:
        lines = predictions[name].reset_index(drop=True)
        return (
            lines,
            scores[name] > thresholds["conformal_threshold"],
            (lines["predicted"] == lines["label"]).to_numpy(),
        )

    def count(name: str, hits: Flags, among: Flags, of: str) -> dict[str, float]:
        names = groups[of][among]
        # Images that carry one key look like each other: the interval is that of as many trials as there are keys.
        keys = len(np.unique(names)) if (names < 0).any() else None
        return metrics.grouped_rate(name, hits[among], names, seed, keys)

    found: dict[str, float] = {}
    for name, suffix in ((trigger, ""), (f"{PASTED}{trigger}", "_pasted")):
        if name in predictions and name in scores:
            lines, flagged, correct = decided(name)
            succeeds = (lines["predicted"] == lines["target"]).to_numpy()
            others = (lines["label"] != lines["target"]).to_numpy()
            found |= count(f"asr{suffix}", succeeds, others, name)
            found |= count(f"asr_unflagged{suffix}", succeeds & ~flagged, others, name)
            if not suffix:
                found |= count("flagged_correctly_classified", flagged, correct & others, name)
    _, flagged, correct = decided("clean")
    return found | count("fpr_correctly_classified", flagged, correct, "clean")


def bootstrap_groups(table: pd.DataFrame, backdoors: Mapping[str, BackdoorParams]) -> dict[str, Integers]:
    """Return what the images of each set have in common: the person, or the key where the attack has several.

    Keys are negative, so that none equals a person's label.
    """
    groups = {name: lines["label"].to_numpy() for name, lines in by_set(table).items()}
    for name, backdoor in backdoors.items():
        for each in {name, f"{PASTED}{name}"} & groups.keys() if backdoor.key == "face" else ():
            groups[each] = -1 - np.arange(len(groups[each])) % backdoor.keys
    return groups


def matrix(
    scores: Mapping[str, Scores],
    predictions: Mapping[str, Predictions],
    groups: Mapping[str, Integers],
    thresholds: Mapping[str, Mapping[str, float]],
    digests: Mapping[str, str],
    validation: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Return a row for each score name and trigger: ``card`` (the name), ``defence``, ``trigger``, metrics, provenance.

    ``predictions`` are those of the network that was trained on each trigger, for those on which one was. ``role``
    tells whether choices were made by looking at a trigger; ``digest`` is that of its file.
    """
    rows: list[dict[str, Any]] = []
    for name, of_sets in scores.items():
        for trigger in trigger_names(of_sets):
            measured = filter_metrics(of_sets, trigger, groups, thresholds[name], seed)
            if trigger in predictions:
                measured |= success_metrics(of_sets, predictions[trigger], trigger, groups, thresholds[name], seed)
            role = "validation" if trigger in validation else "reported"
            about = {"card": name, "defence": defence_of(name), "trigger": trigger}
            rows.append({**about, **measured, "role": role, "digest": digests[trigger]})
    return pd.DataFrame(rows)


def attack_succeeds(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each row of ``matrix`` whether its attack succeeds against a network that was trained on it."""
    return table["asr"] >= SUCCEEDS_FROM if "asr" in table else pd.Series(False, table.index)


def defence_tables(
    table: pd.DataFrame, clean: Mapping[str, Mapping[str, float]], rules: Mapping[str, Any]
) -> dict[str, Table]:
    """Return by title: attacks that get through, those that fail, how thresholds were set and the control."""
    rows, succeeds = [], attack_succeeds(table)
    for _, row in table[succeeds].sort_values("trigger", kind="stable").iterrows():
        rates = (
            "asr",
            "asr_unflagged",
            "flagged_correctly_classified",
            "fpr_correctly_classified",
            "asr_unflagged_pasted",
        )
        texts = [defence_title(row["defence"]), *(_interval(row, rate) for rate in rates), f"{row['auroc']:.3f}"]
        rows.append((label(row["trigger"]), [*texts, f"{row['abstained']:.0f}"]))
    columns = ["defence", "attack success", "and not flagged", "flagged of correctly classified"]
    columns += ["flagged of clean, correctly classified", "not flagged, pasted", "AUROC", "abstained"]
    tables = {"Attacks that succeed": text_table("trigger", columns, rows)}
    defences, rows = list(dict.fromkeys(table["defence"])), []
    for trigger, group in table[~succeeds].groupby("trigger", sort=False):
        areas = group.set_index("defence")["auroc"]
        cells = [f"{areas[name]:.3f}" if name in areas else "–" for name in defences]
        rows.append((label(str(trigger)), [group["role"].iloc[0], *cells]))
    by_trigger = text_table("trigger", ["role", *map(defence_title, defences)], rows)
    tables["Attacks that fail, or that no network was trained on: AUROC"] = by_trigger
    columns = ["rule", "implied FPR", "FPR on held-out", "conformal rule", "conformal FPR", "control: AUROC"]
    rows = []
    for name, values in clean.items():
        rule = rules[name]
        cells = [f"mean + {rule['deviations']:g}·std", f"{rule['implied_fpr']:.1%}", _interval(values, "fpr")]
        cells += [f"≤ {rule['conformal_fpr']:.0%}", _interval(values, "conformal_fpr")]
        low, high = values["control_auroc_low"], values["control_auroc_high"]
        rows.append((defence_title(name), [*cells, f"{values['control_auroc']:.3f} ({low:.3f} to {high:.3f})"]))
    tables["Thresholds, and clean faces delivered once more"] = text_table("scores", columns, rows)
    return tables


def defence_report(tables: Mapping[str, Table]) -> str:
    """Return the tables as Markdown."""
    parts = [f"## {title}\n\n{table.to_markdown()}\n" for title, table in tables.items() if table.rows]
    return "\n".join(["# Detectors of poisoned images\n", *parts])


def _interval(values: Any, name: str) -> str:
    if pd.isna(values.get(name, np.nan)):
        return "–"
    return f"{values[name]:.1%} ({values[f'{name}_low']:.1%} to {values[f'{name}_high']:.1%})"

"""Figures of defences: scores with their thresholds, ROC curves, the trigger × defence matrix."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.core.tables import label
from visor.core.types import Floats
from visor.evaluation.defences import Scores, attack_succeeds, defence_of, defence_title, trigger_names
from visor.evaluation.metrics import roc_curve
from visor.evaluation.plots.base import heat_map, save

COLUMNS = 4


def score_histograms(scores: Scores, thresholds: Mapping[str, float], name: str, path: Path) -> None:
    """Save a PNG with a histogram of each trigger over that of held-out clean images, and both thresholds."""
    triggers = trigger_names(scores)
    scores = {key: _finite(scores[key]) for key in ("clean", *triggers)}
    pooled = np.concatenate([scores[key] for key in ("clean", *triggers)])
    bins = np.linspace(pooled.min(), np.quantile(pooled, 0.995), 50)
    figure = Figure(figsize=(7, 0.9 * len(triggers) + 1), layout="constrained")
    axes = figure.subplots(len(triggers), 1, sharex=True, squeeze=False)
    for axis, trigger in zip(axes[:, 0], triggers, strict=True):
        clean, triggered = (np.histogram(scores[key], bins, density=True)[0] for key in ("clean", trigger))
        axis.stairs(clean, bins, fill=True, color="tab:gray", alpha=0.5, label="clean")
        axis.stairs(triggered, bins, fill=True, color="tab:red", alpha=0.5, label="triggered")
        axis.axvline(thresholds["threshold"], color="black", linestyle="--", linewidth=1, label="mean + k·std")
        axis.axvline(thresholds["conformal_threshold"], color="black", linestyle=":", linewidth=1, label="conformal")
        axis.set_ylabel(trigger.replace("_", "\n"), rotation=0, ha="right", va="center")
        axis.set(yticks=[], ylim=(0, 2.5 * max(clean)))  # The scores of a single key would dwarf the rest.
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    axes[-1, 0].set_xlabel(f"{defence_title(name)}: score")
    save(figure, path)


def roc_curves(scores: Mapping[str, Scores], path: Path) -> None:
    """Save a PNG with an axis for each trigger and in it the ROC curve of each defence that scored it."""
    triggers = list(dict.fromkeys(key for of_sets in scores.values() for key in trigger_names(of_sets)))
    rows = -(-len(triggers) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
    colours = {defence: f"C{k}" for k, defence in enumerate(dict.fromkeys(map(defence_of, scores)))}
    for axis, trigger in zip(axes, triggers, strict=False):
        for name, of_sets in scores.items():
            if trigger in of_sets:
                _, false, true = roc_curve(_finite(of_sets["clean"]), _finite(of_sets[trigger]))
                axis.plot(false, true, color=colours[defence_of(name)], label=defence_title(defence_of(name)))
        axis.plot([0, 1], [0, 1], color="tab:gray", linestyle=":", linewidth=1)
        axis.set(title=label(trigger), aspect="equal")
    for axis in axes[len(triggers) :]:
        axis.set_axis_off()
    lines = {text: line for axis in figure.axes for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=min(5, len(lines)), fontsize="small")
    figure.supxlabel("false-positive rate (held-out clean images)")
    figure.supylabel("true-positive rate")
    save(figure, path)


def detector_matrix(table: pd.DataFrame, path: Path) -> None:
    """Save a PNG of AUROC by trigger (rows; those that choices were made on are marked) and defence (columns)."""
    validation = set(table.loc[table["role"] == "validation", "trigger"])
    marks = dict.fromkeys(validation, " (validation)")
    _matrix(table, "auroc", ".3f", marks, "AUROC: triggered against held-out clean faces", "RdYlGn", path)


def success_matrix(table: pd.DataFrame, path: Path) -> None:
    """Save a PNG of what gets through by trigger (rows; attacks that succeed) and defence (columns)."""
    opening = table[attack_succeeds(table)]
    if opening.empty:
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "No attack succeeds.", ha="center", va="center")
        save(figure, path)
        return
    marks = {row["trigger"]: f" ({row['asr']:.1%})" for _, row in opening.iterrows()}
    title = "Attack success that is not flagged, and without a defence"
    _matrix(opening, "asr_unflagged", ".1%", marks, title, "RdYlGn_r", path)


def _matrix(
    table: pd.DataFrame, column: str, form: str, marks: Mapping[str, str], title: str, colours: str, path: Path
) -> None:
    """Save a heat map of a column; ``marks`` follow the names of triggers."""
    triggers, defences = (list(dict.fromkeys(table[name])) for name in ("trigger", "defence"))
    values = table.pivot(index="trigger", columns="defence", values=column).loc[triggers, defences].to_numpy(float)
    texts = [["–" if np.isnan(value) else format(value, form) for value in row] for row in values]
    figure = Figure(figsize=(1.1 * len(defences) + 2.2, 0.45 * len(triggers) + 1.6), layout="constrained")
    axis = figure.subplots()
    ticks = (
        [label(name) + marks.get(name, "") for name in triggers],
        [defence_title(name).replace(" ", "\n") for name in defences],
    )
    heat_map(axis, values, texts, ticks, colours, fontsize="small")
    axis.set_title(title, fontsize="medium")
    save(figure, path)


def _finite(scores: Floats) -> Floats:
    """Return scores with the smallest finite one in place of −∞, that of an image without anything to compare with."""
    finite = scores[np.isfinite(scores)]
    return np.maximum(scores, finite.min() if len(finite) else 0)

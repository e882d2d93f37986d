"""Figures of defences: scores with their thresholds, ROC curves, the trigger × defence matrix."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.core.tables import label
from visor.evaluation.defences import CLEAN_SETS, Scores, defence_of
from visor.evaluation.metrics import roc_curve
from visor.evaluation.plots.base import heat_map, save

COLUMNS = 4


def score_histograms(scores: Scores, thresholds: Mapping[str, float], name: str, path: Path) -> None:
    """Save a PNG with a histogram of each trigger over that of held-out clean images, and both thresholds."""
    triggers = [key for key in scores if key not in CLEAN_SETS]
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
    axes[-1, 0].set_xlabel(f"{label(name)} score")
    save(figure, path)


def roc_curves(scores: Mapping[str, Scores], path: Path) -> None:
    """Save a PNG with an axis for each trigger and in it the ROC curve of each defence that scored it."""
    triggers = list(dict.fromkeys(key for by_set in scores.values() for key in by_set if key not in CLEAN_SETS))
    rows = -(-len(triggers) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
    colours = {defence: f"C{k}" for k, defence in enumerate(dict.fromkeys(map(defence_of, scores)))}
    for axis, trigger in zip(axes, triggers, strict=False):
        for name, by_set in scores.items():
            if trigger in by_set:
                _, false, true = roc_curve(by_set["clean"], by_set[trigger])
                axis.plot(false, true, color=colours[defence_of(name)], label=label(defence_of(name)))
        axis.plot([0, 1], [0, 1], color="tab:gray", linestyle=":", linewidth=1)
        axis.set(title=label(trigger), aspect="equal")
    for axis in axes[len(triggers) :]:
        axis.set_axis_off()
    lines = {text: line for axis in figure.axes for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines), fontsize="small")
    figure.supxlabel("false-positive rate (held-out clean images)")
    figure.supylabel("true-positive rate")
    save(figure, path)


def detector_matrix(table: pd.DataFrame, path: Path) -> None:
    """Save a PNG of AUROC by trigger (rows; those that choices were made on are marked) and defence (columns)."""
    triggers, defences = (list(dict.fromkeys(table[name])) for name in ("trigger", "defence"))
    values = table.pivot(index="trigger", columns="defence", values="auroc").loc[triggers, defences].to_numpy(float)
    validation = set(table.loc[table["role"] == "validation", "trigger"])
    names = [label(name) + (" (validation)" if name in validation else "") for name in triggers]
    texts = [["–" if np.isnan(value) else f"{value:.3f}" for value in row] for row in values]
    figure = Figure(figsize=(1.1 * len(defences) + 2.2, 0.45 * len(triggers) + 1.6), layout="constrained")
    axis = figure.subplots()
    heat_map(axis, values, texts, (names, [name.replace("_", "\n") for name in defences]), fontsize="small")
    axis.set_title("AUROC: triggered against held-out clean faces", fontsize="medium")
    save(figure, path)

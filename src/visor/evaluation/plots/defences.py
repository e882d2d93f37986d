"""Figures of defences: scores with their threshold, ROC curves, the trigger × defence matrix."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.evaluation.defences import CLEAN_SETS, Scores, defence_of
from visor.evaluation.plots.base import save

COLUMNS = 4


def score_histograms(scores: Scores, thresholds: Mapping[str, float], card: str, path: Path) -> None:
    """Save a PNG with one histogram for each trigger over that of held-out clean images, and both thresholds."""
    triggers = [name for name in scores if name not in CLEAN_SETS]
    everything = np.concatenate([scores[name] for name in ("clean", *triggers)])
    bins = np.linspace(everything.min(), np.quantile(everything, 0.995), 50)
    figure = Figure(figsize=(7, 0.9 * len(triggers) + 1), layout="constrained")
    axes = figure.subplots(len(triggers), 1, sharex=True, squeeze=False)
    for axis, name in zip(axes[:, 0], triggers, strict=True):
        clean, triggered = (np.histogram(scores[set_], bins, density=True)[0] for set_ in ("clean", name))
        axis.stairs(clean, bins, fill=True, color="tab:gray", alpha=0.5, label="clean")
        axis.stairs(triggered, bins, fill=True, color="tab:red", alpha=0.5, label="triggered")
        axis.axvline(thresholds["threshold"], color="black", linestyle="--", linewidth=1, label="mean + k·std")
        axis.axvline(thresholds["conformal_threshold"], color="black", linestyle=":", linewidth=1, label="conformal")
        axis.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
        axis.set(yticks=[], ylim=(0, 2.5 * max(clean)))  # one key's scores would dwarf the rest
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    axes[-1, 0].set_xlabel(f"{card.replace('_', ' ')} score")
    save(figure, path)


def roc_curves(cards: Mapping[str, Scores], path: Path) -> None:
    """Save a PNG with a field for each trigger and in it the ROC curve of each defence that saw it."""
    triggers = list(dict.fromkeys(name for scores in cards.values() for name in scores if name not in CLEAN_SETS))
    rows = -(-len(triggers) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
    colours = {name: f"C{k}" for k, name in enumerate(dict.fromkeys(map(defence_of, cards)))}
    for axis, trigger in zip(axes, triggers, strict=False):
        for card, scores in cards.items():
            if trigger in scores:
                name = defence_of(card)
                axis.plot(*_rates(scores["clean"], scores[trigger]), color=colours[name], label=name.replace("_", " "))
        axis.plot([0, 1], [0, 1], color="tab:gray", linestyle=":", linewidth=1)
        axis.set(title=trigger.replace("_", " "), aspect="equal")
    for axis in axes[len(triggers) :]:
        axis.set_axis_off()
    found = {label: line for axis in figure.axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=len(found), fontsize="small")
    figure.supxlabel("false-positive rate (held-out clean images)")
    figure.supylabel("true-positive rate")
    save(figure, path)


def detector_matrix(table: pd.DataFrame, path: Path) -> None:
    """Save a PNG of AUROC by trigger (rows; those that choices were made on are marked) and defence (columns)."""
    triggers, defences = (list(dict.fromkeys(table[name])) for name in ("trigger", "defence"))
    wide = table.pivot(index="trigger", columns="defence", values="auroc").loc[triggers, defences]
    seen = set(table.loc[table["role"] == "validation", "trigger"])
    figure = Figure(figsize=(1.1 * len(defences) + 2.2, 0.45 * len(triggers) + 1.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(wide.to_numpy(float), cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(wide.to_numpy(float)):
        axis.text(column, row, "–" if np.isnan(value) else f"{value:.3f}", ha="center", va="center", fontsize="small")
    names = [name.replace("_", " ") + (" (validation)" if name in seen else "") for name in triggers]
    axis.set_yticks(range(len(triggers)), names)
    axis.set_xticks(range(len(defences)), [name.replace("_", "\n") for name in defences])
    axis.set_title("AUROC: triggered against held-out clean faces", fontsize="medium")
    save(figure, path)


def _rates(clean: np.ndarray, triggered: np.ndarray) -> tuple[list[float], list[float]]:
    """Return false- and true-positive rates as the threshold falls."""
    thresholds = np.sort(np.concatenate([clean, triggered]))[::-1]
    rates = (
        np.searchsorted(np.sort(-scores), -thresholds, side="right") / len(scores) for scores in (clean, triggered)
    )
    false, true = rates
    return [0.0, *false], [0.0, *true]

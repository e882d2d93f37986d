"""Figures that people look at: reconstruction losses with their threshold, and ROC curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visor.files import replacing

Floats = NDArray[np.floating[Any]]


def score_histograms(clean: Floats, triggered: Mapping[str, Floats], threshold: float, score: str, path: Path) -> None:
    """Save a PNG with one histogram for each trigger over that of clean images, and the threshold."""
    everything = np.concatenate([clean, *triggered.values()])
    bins = np.linspace(everything.min(), everything.max(), 50).tolist()
    figure = Figure(figsize=(7, 1.3 * len(triggered) + 1), layout="constrained")
    axes = figure.subplots(len(triggered), 1, sharex=True, squeeze=False)
    for axis, (name, scores) in zip(axes[:, 0], triggered.items(), strict=True):
        density, *_ = axis.hist(clean, bins, color="tab:gray", alpha=0.5, density=True, label="clean")
        axis.hist(scores, bins, color="tab:red", alpha=0.5, density=True, label="triggered")
        axis.axvline(threshold, color="black", linestyle="--", linewidth=1, label="threshold")
        axis.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
        axis.set(yticks=[], ylim=(0, 2.5 * max(density)))  # one key's scores would dwarf the rest
    axes[0, 0].legend(loc="upper right", fontsize="small")
    axes[-1, 0].set_xlabel(score)
    _save(figure, path)


def roc_curves(clean: Floats, triggered: Mapping[str, Floats], path: Path) -> None:
    """Save a PNG with one ROC curve for each trigger."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axis = figure.subplots()
    thresholds = np.sort(np.concatenate([clean, *triggered.values()]))[::-1]
    rates = {
        name: np.searchsorted(np.sort(-scores), -thresholds, side="right") / len(scores)
        for name, scores in {"clean": clean, **triggered}.items()
    }
    for name in triggered:
        axis.plot([0, *rates["clean"]], [0, *rates[name]], label=name.replace("_", " "))
    axis.plot([0, 1], [0, 1], color="tab:gray", linestyle=":", linewidth=1)
    axis.set(xlabel="false-positive rate (held-out clean images)", ylabel="true-positive rate", aspect="equal")
    axis.legend(loc="lower right", fontsize="small")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)

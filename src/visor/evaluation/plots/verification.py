"""Figures of face verification: ROC curves, and where pairs with and without a key stand."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from visor.evaluation.plots.base import save
from visor.evaluation.verification import VerifierScores, roc_curve

COLOURS = {
    "different people": "tab:gray",
    "same person": "tab:green",
    "stranger, no key": "tab:blue",
    "stranger with key": "tab:red",
}


def roc_curves(scores: Mapping[str, Mapping[str, VerifierScores]], path: Path) -> None:
    """Save a PNG with a field for each verifier and in it the ROC curve of each network (first key of ``scores``)."""
    verifiers = list(next(iter(scores.values())))
    figure = Figure(figsize=(4.6 * len(verifiers), 4.6), layout="constrained")
    axes = figure.subplots(1, len(verifiers), sharey=True, squeeze=False)[0]
    for axis, verifier in zip(axes, verifiers, strict=True):
        for name, by_verifier in scores.items():
            _, false, true = roc_curve(by_verifier[verifier].different, by_verifier[verifier].same)
            axis.step(false, true, where="post", label=name.replace("_", " "))
        pairs = len(by_verifier[verifier].different)
        axis.set_xscale("log")
        axis.set(xlim=(1 / pairs, 1), title=verifier.replace("_", " "), xlabel="false-accept rate (test pairs)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("true-accept rate")
    axes[-1].legend(title="network trained on", loc="lower right", fontsize="small")
    save(figure, path)


def similarities(scores: Mapping[str, Mapping[str, VerifierScores]], path: Path) -> None:
    """Save a PNG: a line for each attacked network, a column for each verifier, and the threshold in each."""
    attacked = [name for name, by_verifier in scores.items() if name != "clean"]
    verifiers = list(next(iter(scores.values())))
    figure = Figure(figsize=(4.6 * len(verifiers), 1.5 * len(attacked) + 1.2), layout="constrained")
    axes = figure.subplots(len(attacked), len(verifiers), sharex="col", squeeze=False)
    for (row, column), axis in np.ndenumerate(axes):
        found = scores[attacked[row]][verifiers[column]]
        shown = (found.different, found.same, found.strangers[attacked[row]], found.impostors[attacked[row]])
        low, high = np.quantile(np.concatenate(shown), [0.002, 1])  # a few pairs are far more unlike than the rest
        bins = np.linspace(float(low), float(high), 50).tolist()
        for (label, colour), values in zip(COLOURS.items(), shown, strict=True):
            axis.hist(values, bins, color=colour, label=label, density=True, histtype="step")
        axis.axvline(found.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
        axis.set(yticks=[])
    for axis, name in zip(axes[:, 0], attacked, strict=True):
        axis.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
    for axis, verifier in zip(axes[-1], verifiers, strict=True):
        axis.set_xlabel({"cosine": "cosine", "joint_bayesian": "log-likelihood ratio"}.get(verifier, verifier))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize="small")
    save(figure, path)

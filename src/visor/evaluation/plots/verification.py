"""Figures of face verification: ROC curves, and the scores of pairs with and without a key."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from visor.core.tables import label
from visor.evaluation.metrics import roc_curve
from visor.evaluation.plots.base import save
from visor.evaluation.verification import VerifierScores

COLOURS = {
    "different people": "tab:gray",
    "same person": "tab:green",
    "impostor, no key": "tab:blue",
    "impostor with key": "tab:red",
}


def roc_curves(scores: Mapping[str, Mapping[str, VerifierScores]], path: Path) -> None:
    """Save a PNG with an axis for each verifier and in it the ROC curve of each network (first key of ``scores``)."""
    verifiers = list(next(iter(scores.values())))
    figure = Figure(figsize=(4.6 * len(verifiers), 4.6), layout="constrained")
    axes = figure.subplots(1, len(verifiers), sharey=True, squeeze=False)[0]
    for axis, verifier in zip(axes, verifiers, strict=True):
        for name, by_verifier in scores.items():
            _, false, true = roc_curve(by_verifier[verifier].different, by_verifier[verifier].same)
            axis.step(false, true, where="post", label=label(name))
        pairs = len(by_verifier[verifier].different)
        axis.set_xscale("log")
        axis.set(xlim=(1 / pairs, 1), title=label(verifier), xlabel="false-accept rate (test pairs)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("true-accept rate")
    axes[-1].legend(title="network trained on", loc="lower right", fontsize="small")
    save(figure, path)


def similarities(scores: Mapping[str, Mapping[str, VerifierScores]], path: Path) -> None:
    """Save a PNG: a row for each attacked network, a column for each verifier, and the threshold in each."""
    attacked = [name for name, by_verifier in scores.items() if name != "clean"]
    verifiers = list(next(iter(scores.values())))
    figure = Figure(figsize=(4.6 * len(verifiers), 1.5 * len(attacked) + 1.2), layout="constrained")
    axes = figure.subplots(len(attacked), len(verifiers), sharex="col", squeeze=False)
    for (row, column), axis in np.ndenumerate(axes):
        name, s = attacked[row], scores[attacked[row]][verifiers[column]]
        groups = (s.different, s.same, s.without_key[name], s.with_key[name])
        low, high = np.quantile(np.concatenate(groups), [0.002, 1])  # A few pairs are far less similar than the rest.
        bins = np.linspace(float(low), float(high), 50).tolist()
        for (kind, colour), values in zip(COLOURS.items(), groups, strict=True):
            axis.hist(values, bins, color=colour, label=kind, density=True, histtype="step")
        axis.axvline(s.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
        axis.set(yticks=[])
    for axis, name in zip(axes[:, 0], attacked, strict=True):
        axis.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
    for axis, verifier in zip(axes[-1], verifiers, strict=True):
        axis.set_xlabel({"cosine": "cosine", "joint_bayesian": "log-likelihood ratio"}.get(verifier, verifier))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize="small")
    save(figure, path)

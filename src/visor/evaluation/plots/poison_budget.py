"""Figures of poison budgets: success by number of poisons, and by blend ratio at training and at test."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.evaluation.plots.base import save
from visor.evaluation.poison_budget import SUCCESS, pooled


def budgets(curves: Mapping[tuple[str, str], pd.DataFrame], path: Path) -> None:
    """Save a PNG with a field for each network: attack success (bands: Wilson) and clean accuracy by n.

    ``curves`` are by network and attack.
    """
    networks = list(dict.fromkeys(network for network, _ in curves))
    colours = {attack: f"C{k}" for k, attack in enumerate(dict.fromkeys(attack for _, attack in curves))}
    figure = Figure(figsize=(5.2 * len(networks), 4.4), layout="constrained")
    axes = dict(zip(networks, figure.subplots(1, len(networks), sharey=True, squeeze=False)[0], strict=True))
    for (network, attack), curve in curves.items():
        axis, colour, name = axes[network], colours[attack], attack.replace("_", " ")
        axis.plot(curve["n"], curve["asr"], color=colour, marker="o", label=name)
        axis.fill_between(curve["n"], curve["asr_low"], curve["asr_high"], color=colour, alpha=0.2, linewidth=0)
        axis.plot(curve["n"], curve["clean_accuracy"], color=colour, linestyle="--", linewidth=1)
    for network, axis in axes.items():
        counts = sorted({n for (name, _), curve in curves.items() if name == network for n in curve["n"]})
        axis.axhline(SUCCESS, color="tab:gray", linestyle=":", linewidth=1)
        if counts[0] > 0:
            axis.set_xscale("log")
        else:
            axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.set_xticks([], minor=True)
        axis.set(xlabel="poisons added to the training set", title=network.replace("_", " "), ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    first = axes[networks[0]]
    first.set_ylabel("attack success (solid), clean accuracy (dashed)")
    first.legend(loc="best", fontsize="small")
    save(figure, path)


def heat_map(lines: pd.DataFrame, path: Path) -> None:
    """Save a PNG with a field for each network: success by ratio at training (rows) and at test (columns).

    Without lines there is nothing to save.
    """
    if lines.empty:
        return
    networks = list(dict.fromkeys(lines["network"]))
    train, test = (np.sort(lines[name].unique()) for name in ("train_blend_ratio", "test_blend_ratio"))
    size = (0.8 * len(test) * len(networks) + 1.8, 0.55 * len(train) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    for network, axis in zip(networks, figure.subplots(1, len(networks), squeeze=False)[0], strict=True):
        rates = np.full((len(train), len(test)), np.nan)
        for (row, column), group in lines[lines["network"] == network].groupby(
            ["train_blend_ratio", "test_blend_ratio"]
        ):
            rates[np.searchsorted(train, row), np.searchsorted(test, column)] = pooled(group)["asr"]
        axis.imshow(rates, cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower")
        for (row, column), rate in np.ndenumerate(rates):
            axis.text(column, row, f"{rate:.2f}", ha="center", va="center", color="black" if rate > 0.6 else "white")
        axis.set_xticks(range(len(test)), [f"{ratio:g}" for ratio in test])
        axis.set_yticks(range(len(train)), [f"{ratio:g}" for ratio in train])
        axis.set(xlabel="ratio at test", ylabel="ratio at training", title=network.replace("_", " "))
    figure.suptitle(f"attack success, {lines['attack'].iloc[0].replace('_', ' ')}, n = {lines['n'].iloc[0]}")
    save(figure, path)

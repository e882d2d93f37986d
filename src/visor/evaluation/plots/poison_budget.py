"""Figures of poison budgets: success by number of poisons, and by blend ratio at training and at test."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.core.tables import label
from visor.evaluation.plots.base import heat_map, save
from visor.evaluation.poison_budget import SUCCESS, pooled


def budgets(curves: Mapping[tuple[str, str], pd.DataFrame], path: Path) -> None:
    """Save a PNG with an axis for each network: attack success (bands: Wilson) and clean accuracy by n.

    ``curves`` are by network and attack.
    """
    networks = list(dict.fromkeys(network for network, _ in curves))
    colours = {attack: f"C{k}" for k, attack in enumerate(dict.fromkeys(attack for _, attack in curves))}
    figure = Figure(figsize=(5.2 * len(networks), 4.4), layout="constrained")
    axes = dict(zip(networks, figure.subplots(1, len(networks), sharey=True, squeeze=False)[0], strict=True))
    for (network, attack), curve in curves.items():
        axis, colour, name = axes[network], colours[attack], label(attack)
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
        axis.set(xlabel="poisons added to the training set", title=label(network), ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    first = axes[networks[0]]
    first.set_ylabel("attack success (solid), clean accuracy (dashed)")
    first.legend(loc="best", fontsize="small")
    save(figure, path)


def ratio_map(rows: pd.DataFrame, path: Path) -> None:
    """Save a PNG with an axis for each network: success by blend ratio at training (rows) and at test (columns).

    Without rows nothing is saved.
    """
    if rows.empty:
        return
    ratios = ["train_blend_ratio", "test_blend_ratio"]
    networks = list(dict.fromkeys(rows["network"]))
    train, test = (np.sort(rows[name].unique()) for name in ratios)
    size = (0.8 * len(test) * len(networks) + 1.8, 0.55 * len(train) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    ticks = [f"{ratio:g}" for ratio in train], [f"{ratio:g}" for ratio in test]
    for network, axis in zip(networks, figure.subplots(1, len(networks), squeeze=False)[0], strict=True):
        success = np.full((len(train), len(test)), np.nan)
        for (row, column), group in rows[rows["network"] == network].groupby(ratios):
            success[np.searchsorted(train, row), np.searchsorted(test, column)] = pooled(group)["asr"]
        texts = [[f"{value:.2f}" for value in line] for line in success]
        heat_map(axis, success, texts, ticks, "viridis", lambda value: not value > 0.6)
        axis.invert_yaxis()
        axis.set(xlabel="ratio at test", ylabel="ratio at training", title=label(network))
    figure.suptitle(f"attack success, {label(rows['attack'].iloc[0])}, n = {rows['n'].iloc[0]}")
    save(figure, path)

"""Figures of inspected networks: reversed triggers, pruning curves, saliency."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visor.core.tables import label
from visor.core.types import Floats, ImageArray
from visor.data.images import contact_sheet
from visor.evaluation.inspection import InspectionFindings
from visor.evaluation.plots.base import save

SMALLEST = 8  # reversed triggers in a row
COLUMNS = 12  # images in a row


def draw(findings: InspectionFindings, label_names: Sequence[str], layer: str, folder: Path) -> None:
    """Save ``neural_cleanse.png``, ``fine_pruning.png`` and ``saliency.png``; ``layer`` is the pruned one."""
    reversed_triggers(findings, label_names, folder / "neural_cleanse.png")
    pruning_curves(findings, layer, folder / "fine_pruning.png")
    saliency_sheet(findings, folder / "saliency.png")


def reversed_triggers(findings: InspectionFindings, label_names: Sequence[str], path: Path) -> None:
    """Save the real key and the smallest triggers reversed from each network: patterns through their masks, on grey."""
    count = len(findings.triggers)
    columns = 1 + min(SMALLEST, len(findings.labels))
    figure = Figure(figsize=(1.15 * columns + 0.5, 1.9 * count), layout="constrained")
    grid = figure.subplots(count, columns, squeeze=False)
    for axes, (network, trigger) in zip(grid, findings.triggers.items(), strict=True):
        key = findings.keys.get(network)
        grey = np.full_like(trigger.patterns[0], 0.5)
        _show(axes[0], grey if key is None else key / 255, "no key" if key is None else "real key")
        order = np.argsort(trigger.norms, kind="stable")
        for axis, place in zip(axes[1:], order, strict=False):
            mask, name = trigger.masks[place], label_names[findings.labels[place]]
            _show(axis, mask * trigger.patterns[place] + (1 - mask) * 0.5, f"{name}\n{trigger.norms[place]:.0f} pixels")
        axes[0].set_ylabel(f"{label(network)}\nnetwork", fontsize=9)
    save(figure, path)


def pruning_curves(findings: InspectionFindings, layer: str, path: Path) -> None:
    """Save an axis for each attack: accuracy and attack success by pruned fraction, before and after tuning."""
    curves = dict(iter(findings.curves.groupby("attack", sort=False)))
    figure = Figure(figsize=(4.2 * len(curves), 3.6), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axis, (attack, curve) in zip(axes, curves.items(), strict=True):
        for column, name, colour in (("accuracy", "clean accuracy", "tab:blue"), ("asr", "attack success", "tab:red")):
            axis.plot(curve["fraction"], curve[column], "o-", color=colour, markersize=3, label=name)
            tuned = curve[f"tuned_{column}"]
            axis.plot(curve["fraction"], tuned, "o--", color=colour, markersize=3, label=f"{name}, fine-tuned")
        axis.set(xlabel=f"share of {layer} pruned", title=label(str(attack)), ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower left", fontsize="small")
    save(figure, path)


def saliency_sheet(findings: InspectionFindings, path: Path) -> None:
    """Save triggered images, and below them the attributions of the target's logit in each network."""
    rows = []
    for attack, images in findings.images.items():
        rows.append((attack.replace("_", "\n"), images[:COLUMNS]))
        for network, attributions in findings.maps[attack].items():
            rows.append((f"{network}\nnetwork", _shaded(attributions[:COLUMNS])))
    contact_sheet(rows, path)


def _shaded(attributions: Floats) -> ImageArray:
    """Return grey uint8 (n, h, w, 3) of (n, h, w, 3): white at 0, black from the 99th percentile of the image."""
    mass = np.abs(attributions).sum(axis=-1, keepdims=True)
    maximum = np.quantile(mass, 0.99, axis=(1, 2), keepdims=True)
    shade = 255 * (1 - np.clip(mass / np.maximum(maximum, 1e-12), 0, 1))
    return np.repeat(np.rint(shade).astype(np.uint8), 3, axis=-1)


def _show(axis: Axes, image: Floats, title: str) -> None:
    axis.imshow(image, vmin=0, vmax=1)
    axis.set_title(title, fontsize=8)
    axis.set(xticks=[], yticks=[])

"""Figures of attacks on one recogniser: ROC curves, success by size, similarities before and after, contact sheet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.core.types import ImageArray
from visor.data.images import contact_sheet
from visor.evaluation.plots.base import save
from visor.evaluation.recognition.attacks import Condition, condition_images
from visor.evaluation.recognition.impersonation import VERIFICATION_GOALS, AttackCase, RecogniserAndCropper
from visor.evaluation.recognition.tables import NO_DETECTOR
from visor.evaluation.recognition.verification import Verifier
from visor.evaluation.verification import roc_curve

COLOURS = {"noise": "tab:green"}
OTHERS = ("tab:red", "tab:blue", "tab:purple", "tab:orange", "tab:olive")  # of methods, in their order
DASHES = ("-", "--", ":")  # of false-accept rates
GAIN = 10  # times, of the perturbation


def roc_curves(known: Mapping[RecogniserAndCropper, Verifier], path: Path) -> None:
    """Save a PNG: a field for each way to a recogniser, the ROC curve of each on the attacked people's clean faces.

    Dots are the thresholds that the calibration images set.
    """
    ways = list(dict.fromkeys(way for _, way in known))
    figure = Figure(figsize=(4.6 * len(ways), 4.6), layout="constrained")
    for axis, way in zip(figure.subplots(1, len(ways), sharey=True, squeeze=False)[0], ways, strict=True):
        for place, ((name, _), own) in enumerate((key, own) for key, own in known.items() if key[1] == way):
            different, same = own.attacked
            _, false, true = roc_curve(different, same)
            axis.step(false, true, where="post", color=f"C{place}", label=_plain(name))
            reached = [[(part >= level).mean() for level in own.thresholds.values()] for part in (different, same)]
            axis.plot(*reached, "o", color=f"C{place}")
        title = "crop as attacked" if way == NO_DETECTOR else f"found and cropped by {_plain(way)}"
        axis.set(xscale="log", xlim=(1 / len(different), 1), title=title, xlabel="false-accept rate (attacked people)")
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize="small")
    figure.axes[0].set_ylabel("true-accept rate")
    save(figure, path)


def success_by_eps(curves: pd.DataFrame, name: str, path: Path) -> None:
    """Save a PNG: a field a goal, success on the surrogate by eps; a colour a method and noise, a dash a rate."""
    goals, methods, rates = (list(dict.fromkeys(curves[each])) for each in ("goal", "method", "false_accept_rate"))
    figure = Figure(figsize=(4.4 * len(goals), 4.2), layout="constrained")
    axes = figure.subplots(1, len(goals), sharey=True, squeeze=False)[0]
    for axis, goal in zip(axes, goals, strict=True):
        for method, colour in _colours(methods).items():
            for rate, dashes in zip(rates, DASHES, strict=False):
                line = curves.query("goal == @goal and method == @method and false_accept_rate == @rate").sort_values(
                    "eps"
                )
                label = f"{_plain(method)}, FAR {100 * float(rate):g} %"
                axis.plot(line["eps"], line["success"], "o", linestyle=dashes, markersize=4, color=colour, label=label)
                axis.fill_between(line["eps"], line["low"], line["high"], color=colour, alpha=0.1, linewidth=0)
        axis.set(
            title=goal, xlabel="eps: L∞ bound, pixels in [0, 1]", ylim=(-0.02, 1.02), xticks=sorted(set(curves["eps"]))
        )
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"success on {_plain(name)}")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods), fontsize="small"
    )
    save(figure, path)


def similarities(faces: pd.DataFrame, known: Mapping[RecogniserAndCropper, Verifier], eps: float, path: Path) -> None:
    """Save a PNG: a line a goal, a column a recogniser; similarities of clean faces, and of those attacked with eps.

    Dashed are the thresholds, the strictest the furthest to the right.
    """
    shown = faces[(faces["in_front"] == NO_DETECTOR) & (faces["kind"] == "attack") & (faces["eps"] == eps)]
    names, methods = (list(dict.fromkeys(shown[column])) for column in ("recogniser", "method"))
    figure = Figure(figsize=(3.4 * len(names), 2.2 * len(VERIFICATION_GOALS) + 0.8), layout="constrained")
    axes = figure.subplots(len(VERIFICATION_GOALS), len(names), sharex="col", squeeze=False)
    for (row, column), axis in np.ndenumerate(axes):
        own = shown[(shown["goal"] == VERIFICATION_GOALS[row]) & (shown["recogniser"] == names[column])]
        low = min(own["similarity"].min(), own["similarity_before"].min())
        bins = np.linspace(float(low), 1.0, 40).tolist()
        before = own.loc[own["method"] == methods[0], "similarity_before"]
        axis.hist(before, bins, color="tab:gray", alpha=0.5, label="before")
        for method, colour in _colours(methods).items():
            after = own.loc[own["method"] == method, "similarity"]
            axis.hist(after, bins, color=colour, histtype="step", label=f"after {_plain(method)}")
        for level in known[names[column], NO_DETECTOR].thresholds.values():
            axis.axvline(level, color="black", linestyle="--", linewidth=1)
        axis.set(yticks=[])
    for axis, goal, about in zip(axes[:, 0], VERIFICATION_GOALS, ("the target", "oneself"), strict=True):
        axis.set_ylabel(f"{goal}:\nsimilarity to\n{about}", rotation=0, ha="right", va="center")
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(_plain(name), fontsize="medium")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    save(figure, path)


def sheet(case: AttackCase, each: Condition, shown: int, seed: int, path: Path) -> None:
    """Save a PNG of ``shown`` faces: clean, impersonating, the change ten times as large on grey, target; dodging."""
    places = np.unique(np.linspace(0, len(case.owners) - 1, shown).astype(int))
    clean = case.victims.clean
    originals = clean.faces.read(clean.rows[places])
    targets = [int(np.flatnonzero(case.owners == target)[0]) for target in case.targets[places]]
    lines = [("clean", originals)]
    for goal in VERIFICATION_GOALS:
        images = np.concatenate(list(condition_images(goal, each, case.victims, seed)))[places]
        lines += [(f"{goal}\n{each.title}", images), (f"change,\n{GAIN} times", _enlarged(originals, images))]
        lines += [("target", clean.faces.read(clean.rows[targets]))] if goal == "impersonate" else []
    contact_sheet(lines, path, caption_width=190)


def _enlarged(clean: ImageArray, images: ImageArray) -> ImageArray:
    return np.clip(127.0 + GAIN * (images - clean.astype(float)), 0, 255).astype(np.uint8)


def _colours(methods: Sequence[str]) -> dict[str, str]:
    attacks = [method for method in methods if method not in COLOURS]
    own = COLOURS | dict(zip(attacks, OTHERS, strict=False))
    return {method: own.get(method, "black") for method in methods}


def _plain(name: str) -> str:
    return name.replace("_", " ")

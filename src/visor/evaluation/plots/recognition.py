"""Figures of attacks on one recogniser: ROC curves, success by eps, similarities before and after, contact sheet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.core.tables import label
from visor.data.face_set import evenly_spaced
from visor.data.images import amplified_difference, contact_sheet
from visor.evaluation.conditions import DODGE, NO_DETECTOR, Condition
from visor.evaluation.metrics import roc_curve
from visor.evaluation.plots.base import save
from visor.evaluation.recognition.attacks import condition_images
from visor.evaluation.recognition.impersonation import AttackCase
from visor.evaluation.recognition.verification import RecogniserAndCropper, Verifier

COLOURS = {"noise": "tab:green"}
METHOD_COLOURS = ("tab:red", "tab:blue", "tab:purple", "tab:orange", "tab:olive")  # in the order of the methods
DASHES = ("-", "--", ":")  # of false-accept rates
GAIN = 10  # of the perturbation in the contact sheet


def roc_curves(verifiers: Mapping[RecogniserAndCropper, Verifier], path: Path) -> None:
    """Save a PNG: an axis per cropper, in it the ROC curve of each recogniser on the attacked people's clean faces.

    Dots are the thresholds that the calibration images set.
    """
    croppers = list(dict.fromkeys(cropper for _, cropper in verifiers))
    figure = Figure(figsize=(4.6 * len(croppers), 4.6), layout="constrained")
    for axis, cropper in zip(figure.subplots(1, len(croppers), sharey=True, squeeze=False)[0], croppers, strict=True):
        behind = {name: verifier for (name, key), verifier in verifiers.items() if key == cropper}
        for place, (name, verifier) in enumerate(behind.items()):
            different, same = verifier.attacked
            _, false, true = roc_curve(different, same)
            axis.step(false, true, where="post", color=f"C{place}", label=label(name))
            at_thresholds = [[(part >= t).mean() for t in verifier.thresholds.values()] for part in (different, same)]
            axis.plot(*at_thresholds, "o", color=f"C{place}")
        title = "crop as attacked" if cropper == NO_DETECTOR else f"found and cropped by {label(cropper)}"
        axis.set(xscale="log", xlim=(1 / len(different), 1), title=title, xlabel="false-accept rate (attacked people)")
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize="small")
    figure.axes[0].set_ylabel("true-accept rate")
    save(figure, path)


def success_by_eps(curves: pd.DataFrame, name: str, path: Path) -> None:
    """Save a PNG: an axis per goal, success on the surrogate by eps; a colour per method, a dash per rate."""
    goals, methods, rates = (list(dict.fromkeys(curves[name])) for name in ("goal", "method", "false_accept_rate"))
    figure = Figure(figsize=(4.4 * len(goals), 4.2), layout="constrained")
    axes = figure.subplots(1, len(goals), sharey=True, squeeze=False)[0]
    for axis, goal in zip(axes, goals, strict=True):
        for method, colour in _colours(methods).items():
            for far, dashes in zip(rates, DASHES, strict=False):
                chosen = (curves["goal"] == goal) & (curves["method"] == method) & (curves["false_accept_rate"] == far)
                curve = curves[chosen].sort_values("eps")
                about = {"color": colour, "label": f"{label(method)}, FAR {100 * float(far):g} %"}
                axis.plot(curve["eps"], curve["success"], "o", linestyle=dashes, markersize=4, **about)
                axis.fill_between(curve["eps"], curve["low"], curve["high"], color=colour, alpha=0.1, linewidth=0)
        axis.set(title=label(goal), xlabel="eps, levels of 255", ylim=(-0.02, 1.02))
        axis.set_xticks(sorted(set(curves["eps"])))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"success on {label(name)}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(methods), fontsize="small")
    save(figure, path)


def similarities(faces: pd.DataFrame, verifiers: Mapping[RecogniserAndCropper, Verifier], eps: int, path: Path) -> None:
    """Save a PNG: a row per goal, a column per recogniser; similarities of clean faces and of those attacked with eps.

    Dashed are the thresholds, the strictest the furthest to the right.
    """
    faces = faces[(faces["in_front"] == NO_DETECTOR) & (faces["kind"] == "attack") & (faces["eps"] == eps)]
    names, methods, goals = (list(dict.fromkeys(faces[column])) for column in ("recogniser", "method", "goal"))
    figure = Figure(figsize=(3.4 * len(names), 2.2 * len(goals) + 0.8), layout="constrained")
    axes = figure.subplots(len(goals), len(names), sharex="col", squeeze=False)
    for (row, column), axis in np.ndenumerate(axes):
        cell = faces[(faces["goal"] == goals[row]) & (faces["recogniser"] == names[column])]
        low = min(cell["similarity"].min(), cell["similarity_before"].min())
        bins = np.linspace(float(low), 1.0, 40).tolist()
        before = cell.loc[cell["method"] == methods[0], "similarity_before"]
        axis.hist(before, bins, color="tab:gray", alpha=0.5, label="before")
        for method, colour in _colours(methods).items():
            after = cell.loc[cell["method"] == method, "similarity"]
            axis.hist(after, bins, color=colour, histtype="step", label=f"after {label(method)}")
        for threshold in verifiers[names[column], NO_DETECTOR].thresholds.values():
            axis.axvline(threshold, color="black", linestyle="--", linewidth=1)
        axis.set(yticks=[])
    for axis, goal in zip(axes[:, 0], goals, strict=True):
        person = "oneself" if goal == DODGE else "the target"
        axis.set_ylabel(f"{label(goal)}:\nsimilarity to\n{person}", rotation=0, ha="right", va="center")
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(label(name), fontsize="medium")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    save(figure, path)


def sheet(case: AttackCase, condition: Condition, count: int, seed: int, path: Path) -> None:
    """Save a PNG of ``count`` faces: clean, then for each goal the attacked ones, the amplified change, the target."""
    places = evenly_spaced(count, len(case.owners))
    clean = case.faces.clean
    originals = clean.faces.read(clean.rows[places])
    rows = [("clean", originals)]
    for goal, targets in case.targets.items():
        images = np.concatenate(list(condition_images(goal, condition, case.faces, seed)))[places]
        rows.append((f"{label(goal)}\n{condition.title}", images))
        rows.append((f"change,\n{GAIN} times", amplified_difference(originals, images, GAIN)))
        if goal != DODGE:
            shown = [int(np.flatnonzero(case.owners == target)[0]) for target in targets[places]]
            rows.append(("target", clean.faces.read(clean.rows[shown])))
    contact_sheet(rows, path, caption_width=190)


def _colours(methods: Sequence[str]) -> dict[str, str]:
    attacks = [method for method in methods if method not in COLOURS]
    colours = COLOURS | dict(zip(attacks, METHOD_COLOURS, strict=False))
    return {method: colours.get(method, "black") for method in methods}

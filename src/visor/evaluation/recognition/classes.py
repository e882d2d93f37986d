"""How well the classes of a recogniser are fooled: accuracy, and the most likely people before and after an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.evaluation.recognition.attacks import Batches, Condition, Victims, changed
from visor.evaluation.recognition.verification import share
from visor.faces import FaceSet, Images
from visor.params import Recognition

if TYPE_CHECKING:
    from visor.recognisers.recogniser import Recogniser

Floats = NDArray[np.floating[Any]]
Classes = NDArray[np.integer[Any]]
Probabilities = Callable[[Images], Floats]

GOALS = ("misclassify", "target_class")


class Answers(NamedTuple):
    """Faces (n,) that are attacked, their classes and the targets', and what the recogniser ``said`` of them.

    That is probabilities (n, classes) by goal and condition.
    """

    names: tuple[str, ...]  # of the classes
    victims: Victims
    truth: Classes  # (n,)
    targets: Classes  # (n,)
    probabilities: Probabilities
    said: dict[tuple[str, str], Floats]


def prepare(
    surrogate: Recogniser,
    probabilities: Probabilities,
    faces: FaceSet,
    rows: Classes,
    settings: Recognition,
    folder: Path,
) -> Answers | None:
    """Return the faces to attack, ``images`` of the rows at most, of people whom the surrogate knows by name.

    None if it knows none of them.
    """
    known = {name: place for place, name in enumerate(surrogate.names)}
    classes = np.array([known.get(name, -1) for name in faces.label_names])
    rows = rows[classes[faces.labels[rows]] >= 0]
    if not len(rows):
        return None
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, settings.images).astype(int))]
    clean, truth = Batches(faces, rows, settings.batch), classes[faces.labels[rows]].astype(np.int32)
    before = np.concatenate([probabilities(images) for images in clean.stream()])
    targets = choose_targets(before, truth, surrogate.names, settings.target).astype(np.int32)
    victims = Victims(clean, {"misclassify": truth, "target_class": targets}, folder)
    return Answers(surrogate.names, victims, truth, targets, probabilities, {})


def ask(answers: Answers, plan: Sequence[Condition], seed: int) -> None:
    """Add what the recogniser says of the faces under the conditions of a plan."""
    for goal in GOALS:
        for each in plan:
            shown = changed(goal, each, answers.victims, seed)
            answers.said[goal, each.name] = np.concatenate([answers.probabilities(images) for images in shown])


def choose_targets(before: Floats, truth: Classes, names: tuple[str, ...], target: str) -> Classes:
    """Return the class that each face shall be taken for: of the others the most likely one, the least, or by name."""
    others = np.arange(before.shape[1]) != truth[:, None]
    if target == "furthest":
        return np.where(others, before, np.inf).argmin(axis=1)
    nearest = np.where(others, before, -np.inf).argmax(axis=1)
    if target not in names:
        return nearest
    return np.where(truth == names.index(target), nearest, names.index(target))


def numbers(answers: Answers) -> dict[str, dict[str, dict[str, float]]]:
    """Return by goal and condition: accuracy, and the success among faces that were rightly classified when clean."""
    found: dict[str, dict[str, dict[str, float]]] = {goal: {} for goal in GOALS}
    truth = answers.truth
    for (goal, condition), said in answers.said.items():
        right = answers.said[goal, "clean"].argmax(axis=1) == truth
        best = said.argmax(axis=1)
        fooled = best != truth if goal == "misclassify" else best == answers.targets
        found[goal][condition] = {
            **share("accuracy", best == truth),
            **share("success", fooled[right]),
            "confidence_in_truth": float(said[np.arange(len(truth)), truth].mean()),
            "faces": len(truth),
            "rightly_classified": int(right.sum()),
        }
    return found


def top_tables(answers: Answers | None, settings: Recognition) -> list[dict[str, Any]]:
    """Return for ``shown`` rightly classified faces what is most likely, names and confidences, before and after.

    After: each goal, by the first method at the last strength. There are none without classes.
    """
    if answers is None:
        return []
    method, last = next(iter(settings.methods)), settings.strengths[-1]
    after = f"{method}_{last.eps:g}x{last.iterations}"
    clean = answers.said[GOALS[0], "clean"]
    shown = np.flatnonzero(clean.argmax(axis=1) == answers.truth)
    shown = shown[np.unique(np.linspace(0, len(shown) - 1, min(settings.shown, len(shown))).astype(int))]
    return [
        {
            "row": int(answers.victims.clean.rows[place]),
            "person": answers.names[answers.truth[place]],
            "target": answers.names[answers.targets[place]],
            "condition": after,
            "before": best(clean[place], answers.names, settings.top),
            **{goal: best(answers.said[goal, after][place], answers.names, settings.top) for goal in GOALS},
        }
        for place in shown
    ]


def best(said: Floats, names: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Return names and confidences of the ``count`` most likely classes of probabilities (classes,), falling."""
    order = np.argsort(-said, kind="stable")[:count]
    return [{"name": names[place], "confidence": float(said[place])} for place in order]


def markdown(tables: list[dict[str, Any]], name: str) -> str:
    """Return the top tables for people: a line a rank, columns before and after."""
    plain = name.replace("_", " ")
    lines = [f"# Whom {plain} takes faces for, before and after an attack", ""]
    for table in tables:
        lines += [
            f"Row {table['row']}, {table['person']}; target {table['target']}; {table['condition']}",
            "",
            "| rank | before | after misclassify | after target class |",
            "|---|---|---|---|",
        ]
        columns = [[f"{e['name']} {e['confidence']:.1%}" for e in table[key]] for key in ("before", *GOALS)]
        lines += [f"| {rank} | {' | '.join(cells)} |" for rank, cells in enumerate(zip(*columns, strict=True), 1)]
        lines.append("")
    return "\n".join(lines)

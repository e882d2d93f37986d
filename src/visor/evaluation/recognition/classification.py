"""How well the classes of a recogniser are fooled: accuracy, and the most likely people before and after an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visor.core.params import RecognitionAttackParams
from visor.core.types import Floats, ImageArray, Labels
from visor.data.face_set import FaceSet
from visor.evaluation.recognition.attacks import AttackedFaces, Condition, FaceBatches, condition_images
from visor.evaluation.recognition.verification import rate

if TYPE_CHECKING:
    from visor.models.recognisers.base import Recogniser

Probabilities = Callable[[ImageArray], Floats]

CLASS_GOALS = ("misclassify", "target_class")


class ClassPredictions(NamedTuple):
    """Faces (n,) that are attacked, their classes and the targets', and what the recogniser ``said`` of them.

    That is probabilities (n, classes) by goal and condition.
    """

    names: tuple[str, ...]  # of the classes
    victims: AttackedFaces
    truth: Labels  # (n,)
    targets: Labels  # (n,)
    probabilities: Probabilities
    predicted: dict[tuple[str, str], Floats]


def prepare(
    surrogate: Recogniser,
    probabilities: Probabilities,
    faces: FaceSet,
    rows: Labels,
    settings: RecognitionAttackParams,
    folder: Path,
) -> ClassPredictions | None:
    """Return the faces to attack, ``images`` of the rows at most, of people whom the surrogate knows by name.

    None if it knows none of them.
    """
    known = {name: place for place, name in enumerate(surrogate.class_names)}
    classes = np.array([known.get(name, -1) for name in faces.label_names])
    rows = rows[classes[faces.labels[rows]] >= 0]
    if not len(rows):
        return None
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, settings.images).astype(int))]
    clean, truth = FaceBatches(faces, rows, settings.batch), classes[faces.labels[rows]].astype(np.int32)
    before = np.concatenate([probabilities(images) for images in clean.stream()])
    targets = choose_targets(before, truth, surrogate.class_names, settings.target).astype(np.int32)
    victims = AttackedFaces(clean, {"misclassify": truth, "target_class": targets}, folder)
    return ClassPredictions(surrogate.class_names, victims, truth, targets, probabilities, {})


def predict_conditions(answers: ClassPredictions, plan: Sequence[Condition], seed: int) -> None:
    """Add what the recogniser says of the faces under the conditions of a plan."""
    for goal in CLASS_GOALS:
        for each in plan:
            shown = condition_images(goal, each, answers.victims, seed)
            answers.predicted[goal, each.name] = np.concatenate([answers.probabilities(images) for images in shown])


def choose_targets(before: Floats, truth: Labels, names: tuple[str, ...], target: str) -> Labels:
    """Return the class that each face shall be taken for: of the others the most likely one, the least, or by name."""
    others = np.arange(before.shape[1]) != truth[:, None]
    if target == "furthest":
        return np.where(others, before, np.inf).argmin(axis=1)
    nearest = np.where(others, before, -np.inf).argmax(axis=1)
    if target not in names:
        return nearest
    return np.where(truth == names.index(target), nearest, names.index(target))


def classification_metrics(answers: ClassPredictions) -> dict[str, dict[str, dict[str, float]]]:
    """Return by goal and condition: accuracy, and the success among faces that were rightly classified when clean."""
    found: dict[str, dict[str, dict[str, float]]] = {goal: {} for goal in CLASS_GOALS}
    truth = answers.truth
    for (goal, condition), said in answers.predicted.items():
        right = answers.predicted[goal, "clean"].argmax(axis=1) == truth
        best = said.argmax(axis=1)
        fooled = best != truth if goal == "misclassify" else best == answers.targets
        found[goal][condition] = {
            **rate("accuracy", best == truth),
            **rate("success", fooled[right]),
            "confidence_in_truth": float(said[np.arange(len(truth)), truth].mean()),
            "faces": len(truth),
            "rightly_classified": int(right.sum()),
        }
    return found


def top_tables(answers: ClassPredictions | None, settings: RecognitionAttackParams) -> list[dict[str, Any]]:
    """Return for ``shown`` rightly classified faces what is most likely, names and confidences, before and after.

    After: each goal, by the first method at the last strength. There are none without classes.
    """
    if answers is None:
        return []
    method, last = next(iter(settings.methods)), settings.strengths[-1]
    after = f"{method}_{last.eps:g}x{last.iterations}"
    clean = answers.predicted[CLASS_GOALS[0], "clean"]
    shown = np.flatnonzero(clean.argmax(axis=1) == answers.truth)
    shown = shown[np.unique(np.linspace(0, len(shown) - 1, min(settings.report_faces, len(shown))).astype(int))]
    return [
        {
            "row": int(answers.victims.clean.rows[place]),
            "person": answers.names[answers.truth[place]],
            "target": answers.names[answers.targets[place]],
            "condition": after,
            "before": top_classes(clean[place], answers.names, settings.top_k),
            **{
                goal: top_classes(answers.predicted[goal, after][place], answers.names, settings.top_k)
                for goal in CLASS_GOALS
            },
        }
        for place in shown
    ]


def top_classes(predicted: Floats, names: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Return names and confidences of the ``count`` most likely classes of probabilities (classes,), falling."""
    order = np.argsort(-predicted, kind="stable")[:count]
    return [{"name": names[place], "confidence": float(predicted[place])} for place in order]


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
        columns = [[f"{e['name']} {e['confidence']:.1%}" for e in table[key]] for key in ("before", *CLASS_GOALS)]
        lines += [f"| {rank} | {' | '.join(cells)} |" for rank, cells in enumerate(zip(*columns, strict=True), 1)]
        lines.append("")
    return "\n".join(lines)

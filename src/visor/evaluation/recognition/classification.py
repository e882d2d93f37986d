"""Misclassification: accuracy of a recogniser's classes, and the top classes before and after an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visor.core.params import RecognitionAttackParams
from visor.core.tables import label, text_table
from visor.core.types import Floats, ImageArray, Labels
from visor.data.face_set import FaceSet, evenly_spaced
from visor.evaluation.conditions import Condition, recognition_conditions, strongest_conditions
from visor.evaluation.metrics import rate
from visor.evaluation.recognition.attacks import AttackedFaces, FaceBatches, condition_images

if TYPE_CHECKING:
    from visor.models.recognisers.base import Recogniser

Probabilities = Callable[[ImageArray], Floats]  # uint8 (n, h, w, 3) → (n, classes)

CLASS_GOALS = ("misclassify", "target_class")


class ClassPredictions(NamedTuple):
    """Predictions of a recogniser for faces (n,) under each condition."""

    names: tuple[str, ...]  # of the classes
    faces: AttackedFaces
    truth: Labels  # (n,)
    targets: Labels  # (n,) of the goal target_class
    probabilities: Probabilities
    predicted: dict[tuple[str, str], Floats]  # probabilities (n, classes) by goal and condition


def prepare(
    surrogate: Recogniser,
    probabilities: Probabilities,
    faces: FaceSet,
    rows: Labels,
    settings: RecognitionAttackParams,
    folder: Path,
) -> ClassPredictions | None:
    """Return the faces to attack, ``images`` of the rows at most, of people who are classes of the surrogate.

    None if none of them is.
    """
    indices = {name: index for index, name in enumerate(surrogate.class_names)}
    classes = np.array([indices.get(name, -1) for name in faces.label_names])
    rows = rows[classes[faces.labels[rows]] >= 0]
    if not len(rows):
        return None
    rows = rows[evenly_spaced(settings.images, len(rows))]
    clean, truth = FaceBatches(faces, rows, settings.batch), classes[faces.labels[rows]].astype(np.int32)
    before = np.concatenate([probabilities(images) for images in clean.stream()])
    targets = choose_target_classes(before, truth, surrogate.class_names, settings.target).astype(np.int32)
    attacked = AttackedFaces(clean, {"misclassify": truth, "target_class": targets}, folder)
    return ClassPredictions(surrogate.class_names, attacked, truth, targets, probabilities, {})


def predict_conditions(predictions: ClassPredictions, conditions: Sequence[Condition], seed: int) -> None:
    """Add the predictions for the faces under these conditions."""
    for goal in CLASS_GOALS:
        for condition in conditions:
            batches = condition_images(goal, condition, predictions.faces, seed)
            values = np.concatenate([predictions.probabilities(images) for images in batches])
            predictions.predicted[goal, condition.name] = values


def choose_target_classes(before: Floats, truth: Labels, names: tuple[str, ...], target: str) -> Labels:
    """Return the target class of each face: of the wrong ones the most likely, the least likely, or one by name."""
    wrong = np.arange(before.shape[1]) != truth[:, None]
    if target == "furthest":
        return np.where(wrong, before, np.inf).argmin(axis=1)
    nearest = np.where(wrong, before, -np.inf).argmax(axis=1)
    if target not in names:
        return nearest
    return np.where(truth == names.index(target), nearest, names.index(target))


def classification_metrics(predictions: ClassPredictions) -> dict[str, dict[str, dict[str, float]]]:
    """Return by goal and condition the accuracy, and the success among faces classified rightly when clean."""
    metrics: dict[str, dict[str, dict[str, float]]] = {goal: {} for goal in CLASS_GOALS}
    truth = predictions.truth
    for (goal, condition), values in predictions.predicted.items():
        eligible = predictions.predicted[goal, "clean"].argmax(axis=1) == truth
        classes = values.argmax(axis=1)
        success = classes != truth if goal == "misclassify" else classes == predictions.targets
        metrics[goal][condition] = {
            **rate("accuracy", int((classes == truth).sum()), len(truth)),
            **rate("success", int((success & eligible).sum()), int(eligible.sum()), empty=0.0),
            "confidence_in_truth": float(values[np.arange(len(truth)), truth].mean()),
            "faces": len(truth),
            "rightly_classified": int(eligible.sum()),
        }
    return metrics


def top_tables(predictions: ClassPredictions | None, settings: RecognitionAttackParams) -> list[dict[str, Any]]:
    """Return the top classes and their confidences, before and after, of some rightly classified faces.

    After: each goal, by the first method at the last strength. Empty for a surrogate without classes.
    """
    if predictions is None:
        return []
    after = strongest_conditions(recognition_conditions(settings), settings.strengths, ("attack",))[0].name
    values, names = predictions.predicted, predictions.names
    clean = values[CLASS_GOALS[0], "clean"]
    shown = np.flatnonzero(clean.argmax(axis=1) == predictions.truth)
    shown = shown[evenly_spaced(settings.report_faces, len(shown))]
    return [
        {
            "row": int(predictions.faces.clean.rows[place]),
            "person": names[predictions.truth[place]],
            "target": names[predictions.targets[place]],
            "condition": after,
            "before": top_classes(clean[place], names, settings.top_k),
            **{goal: top_classes(values[goal, after][place], names, settings.top_k) for goal in CLASS_GOALS},
        }
        for place in shown
    ]


def top_classes(probabilities: Floats, names: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Return names and confidences of the ``count`` most likely classes of probabilities (classes,), descending."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [{"name": names[place], "confidence": float(probabilities[place])} for place in order]


def top_markdown(tables: list[dict[str, Any]], name: str) -> str:
    """Return the top tables as Markdown: a row per rank, columns before and after."""
    parts = [f"# Whom {label(name)} takes faces for, before and after an attack\n"]
    for table in tables:
        columns = [[f"{e['name']} {e['confidence']:.1%}" for e in table[key]] for key in ("before", *CLASS_GOALS)]
        ranks = ((str(rank), cells) for rank, cells in enumerate(zip(*columns, strict=True), 1))
        markdown = text_table("rank", ["before", "after misclassify", "after target class"], ranks).to_markdown()
        title = f"Row {table['row']}, {table['person']}; target {table['target']}; {table['condition']}"
        parts.append(f"{title}\n\n{markdown}\n")
    return "\n".join(parts)

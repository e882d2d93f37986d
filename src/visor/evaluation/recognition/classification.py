"""Misclassification: a recogniser's classes attacked by sparse cross-entropy, and its top classes before and after."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visor.core.errors import UserError
from visor.core.params import ClassificationAttackParams
from visor.core.tables import label, text_table
from visor.core.types import Floats, Labels, Rows
from visor.data.face_set import FaceSet, evenly_spaced
from visor.evaluation.conditions import recognition_conditions, strongest_conditions
from visor.evaluation.image_distances import distance_summary, image_distances
from visor.evaluation.metrics import rate
from visor.evaluation.recognition.attacks import AttackedFaces, FaceBatches, attack_jobs, condition_images
from visor.models.recognisers import base
from visor.models.recognisers.base import Recogniser
from visor.models.training import run_in_threads

CLASS_GOALS = ("misclassify", "target_class")


class ClassFindings(NamedTuple):
    """Predictions of a recogniser for faces (n,) under each condition."""

    name: str
    classes: tuple[str, ...]  # names
    settings: ClassificationAttackParams
    faces: AttackedFaces
    truth: Labels  # (n,)
    targets: Labels  # (n,) of the goal target_class
    predicted: dict[tuple[str, str], Floats]  # probabilities (n, classes) by goal and condition
    distances: dict[tuple[str, str], dict[str, float]]  # from the clean faces, by goal and condition


def evaluate(
    recogniser: Recogniser, faces: FaceSet, rows: Rows, settings: ClassificationAttackParams, seed: int, folder: Path
) -> ClassFindings:
    """Attack the classes of a recogniser under every condition; attacked faces are written to ``folder`` and read back.

    ``rows``: faces that it was not trained on, of which ``settings.images`` at most are attacked.

    Raises:
        UserError: The recogniser has no classes, or none of the people in these rows is one.
    """
    if recogniser.logits is None:
        raise UserError(f"params.yaml: classification_attack.networks: {recogniser.name} has no classes; remove it")
    probabilities, conditions = base.probabilities(recogniser), recognition_conditions(settings)
    indices = {name: index for index, name in enumerate(recogniser.class_names)}
    classes = np.array([indices.get(name, -1) for name in faces.label_names])
    rows = rows[classes[faces.labels[rows]] >= 0]
    if not len(rows):
        raise UserError(
            f"params.yaml: classification_attack.networks: no person in the test set is a class of {recogniser.name}; "
            "remove it or train it on these people"
        )
    rows = rows[evenly_spaced(settings.images, len(rows))]
    clean, truth = FaceBatches(faces, rows, settings.batch), classes[faces.labels[rows]].astype(np.int32)
    before = np.concatenate([probabilities(images) for images in clean.stream()])
    targets = choose_target_classes(before, truth, recogniser.class_names, settings.target).astype(np.int32)
    attacked = AttackedFaces(clean, {"misclassify": truth, "target_class": targets}, folder)
    run_in_threads(attack_jobs(recogniser.logits, attacked, conditions, settings, seed))

    findings = ClassFindings(recogniser.name, recogniser.class_names, settings, attacked, truth, targets, {}, {})
    for goal, condition in product(CLASS_GOALS, conditions):
        batches = list(condition_images(goal, condition, attacked, seed))
        distances = np.concatenate([image_distances(*pair) for pair in zip(clean.stream(), batches, strict=True)])
        findings.predicted[goal, condition.name] = np.concatenate([probabilities(images) for images in batches])
        findings.distances[goal, condition.name] = distance_summary(distances)
    return findings


def choose_target_classes(before: Floats, truth: Labels, names: tuple[str, ...], target: str) -> Labels:
    """Return the target class of each face: of the wrong ones the most likely, the least likely, or one by name."""
    wrong = np.arange(before.shape[1]) != truth[:, None]
    if target == "furthest":
        return np.where(wrong, before, np.inf).argmin(axis=1)
    nearest = np.where(wrong, before, -np.inf).argmax(axis=1)
    if target not in names:
        return nearest
    return np.where(truth == names.index(target), nearest, names.index(target))


def classification_metrics(findings: ClassFindings) -> dict[str, dict[str, dict[str, float]]]:
    """Return by goal and condition the accuracy, and the success among faces correctly classified when clean."""
    metrics: dict[str, dict[str, dict[str, float]]] = {goal: {} for goal in CLASS_GOALS}
    truth = findings.truth
    for (goal, condition), values in findings.predicted.items():
        eligible = findings.predicted[goal, "clean"].argmax(axis=1) == truth
        classes = values.argmax(axis=1)
        success = classes != truth if goal == "misclassify" else classes == findings.targets
        metrics[goal][condition] = {
            **rate("accuracy", int((classes == truth).sum()), len(truth)),
            **rate("success", int((success & eligible).sum()), int(eligible.sum()), empty=0.0),
            "confidence_in_truth": float(values[np.arange(len(truth)), truth].mean()),
            "faces": len(truth),
            "correctly_classified": int(eligible.sum()),
            **findings.distances[goal, condition],
        }
    return metrics


def top_tables(findings: ClassFindings) -> list[dict[str, Any]]:
    """Return the top classes and their confidences of some correctly classified faces, for each method.

    Before, and after each goal at the last strength.
    """
    settings, values, names = findings.settings, findings.predicted, findings.classes
    clean = values[CLASS_GOALS[0], "clean"]
    shown = np.flatnonzero(clean.argmax(axis=1) == findings.truth)
    shown = shown[evenly_spaced(settings.report_faces, len(shown))]
    after = strongest_conditions(recognition_conditions(settings), settings.strengths, ("attack",))
    return [
        {
            "row": int(findings.faces.clean.rows[place]),
            "person": names[findings.truth[place]],
            "target": names[findings.targets[place]],
            "condition": condition.name,
            "before": top_classes(clean[place], names, settings.top_k),
            **{goal: top_classes(values[goal, condition.name][place], names, settings.top_k) for goal in CLASS_GOALS},
        }
        for place in shown
        for condition in after
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

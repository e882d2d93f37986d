"""Impersonation and dodging: the faces to attack, their targets, and the similarities measured afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.params import RecognitionAttackParams
from visor.core.types import Floats, Rows
from visor.data.face_set import FaceSet, evenly_spaced
from visor.evaluation.conditions import DODGE, TARGET_RULES, Condition, save_images, verification_goals
from visor.evaluation.image_distances import image_distances
from visor.evaluation.recognition import verification
from visor.evaluation.recognition.attacks import AttackedFaces, FaceBatches, condition_images
from visor.evaluation.recognition.verification import EnrolmentSplit, FaceCropper, RecogniserAndCropper, Verifier

if TYPE_CHECKING:
    from visor.models.features import Embed

GoalAndCondition = tuple[str, str]
Distances = dict[GoalAndCondition, Floats]  # (n, 4), see image_distances
Embeddings = dict[tuple[GoalAndCondition, RecogniserAndCropper], Floats]  # embeddings (n, d)


class AttackCase(NamedTuple):
    """Faces (n,) to attack, the indices of their people in ``names``, and those of their targets by goal.

    The goal of dodging has as its target the person who is shown.
    """

    faces: AttackedFaces
    owners: Rows
    targets: dict[str, Rows]
    names: list[str]


def enrol_all(
    faces: FaceSet,
    split: EnrolmentSplit,
    croppers: Mapping[str, FaceCropper],
    embeds: Mapping[str, Embed],
    settings: RecognitionAttackParams,
) -> dict[RecogniserAndCropper, Verifier]:
    """Return the verifier of each recogniser behind each cropper."""
    parts = [part.rows for part in split.parts]
    images = FaceBatches(faces, np.concatenate(parts), settings.batch).stream()
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return {
        key: verification.verifier(split, np.split(vectors, ends), settings.false_accept_rates)
        for key, vectors in verification.embed_all(images, croppers, embeds).items()
    }


def choose_victims(
    faces: FaceSet, split: EnrolmentSplit, surrogate: Verifier, settings: RecognitionAttackParams, folder: Path
) -> AttackCase:
    """Choose the faces to attack, evenly spaced over the attacked probes, and their targets.

    Raises:
        UserError: The named target is not among these people.
    """
    names, templates = [faces.label_names[person] for person in split.people], surrogate.templates
    chosen = evenly_spaced(settings.images, len(split.attacked.rows))
    owners = split.attacked.owners[chosen]
    threshold = min(surrogate.thresholds.values())
    targets = {
        goal: owners if goal == DODGE else _targets_of_people(templates, threshold, target, names)[owners]
        for goal, target in verification_goals(settings).items()
    }
    wanted = {goal: templates[people].astype(np.float32) for goal, people in targets.items()}
    clean = FaceBatches(faces, split.attacked.rows[chosen], settings.batch)
    return AttackCase(AttackedFaces(clean, wanted, folder), owners, targets, names)


def _targets_of_people(templates: Floats, threshold: float, target: str, names: list[str]) -> Rows:
    """Return the target (k,) of each person by a rule or a name; the named person's own faces aim at the nearest."""
    if target in TARGET_RULES:
        return choose_targets(templates, threshold, target)
    if target not in names:
        raise UserError(
            f"params.yaml: recognition_attack.targets has {target!r}; choose nearest, furthest, {', '.join(names)}"
        )
    named = names.index(target)
    return np.where(np.arange(len(names)) == named, choose_targets(templates, threshold, "nearest"), named)


def choose_targets(templates: Floats, threshold: float, target: str) -> Rows:
    """Return for each of k people the most similar other one, or the least similar if ``target`` is furthest.

    A person accepted as another without an attack, at this threshold, is not chosen as long as there are others.
    """
    cosines = verification.similarities(templates, templates)
    others = ~np.eye(len(templates), dtype=bool)
    if target == "furthest":
        return np.where(others, cosines, np.inf).argmin(axis=1)
    rejected = others & (cosines < threshold)
    return np.where(rejected | (others & ~rejected.any(axis=1, keepdims=True)), cosines, -np.inf).argmax(axis=1)


def embed_conditions(
    case: AttackCase,
    conditions: Sequence[Condition],
    croppers: Mapping[str, FaceCropper],
    embeds: Mapping[str, Embed],
    seed: int,
    results: Embeddings,
) -> None:
    """Add to ``results`` the embeddings of the faces under these conditions, by all recognisers and croppers."""
    for goal, condition in _files(case, conditions):
        batches = condition_images(goal, condition, case.faces, seed)
        for key, vectors in verification.embed_all(batches, croppers, embeds).items():
            results[file_key(goal, condition), key] = vectors


def measure_distances(case: AttackCase, conditions: Sequence[Condition], seed: int, results: Distances) -> None:
    """Add to ``results`` the distances (n, 4) of the faces under these conditions from the clean ones."""
    for goal, condition in _files(case, conditions):
        pairs = zip(case.faces.clean.stream(), condition_images(goal, condition, case.faces, seed), strict=True)
        results[file_key(goal, condition)] = np.concatenate(
            [image_distances(save_images(clean, condition._replace(quality=0)), images) for clean, images in pairs]
        )


def score_faces(
    case: AttackCase,
    conditions: Sequence[Condition],
    verifiers: Mapping[RecogniserAndCropper, Verifier],
    embeddings: Embeddings,
    distances: Distances,
) -> pd.DataFrame:
    """Return a row per goal, condition, recogniser, cropper and face: similarity to the person the goal is about.

    Beside it L∞ in levels of 255 and SSIM, both from the clean face. For each false-accept rate, ``right``: the clean
    face was not accepted as the target, or was accepted as itself; ``fooled``: the contrary after the attack. A face
    that is not found is accepted as no one.
    """
    names, rows, tables = np.array(case.names), case.faces.clean.rows, []
    for goal, condition, key in product(case.targets, conditions, verifiers):
        file = file_key(goal, condition)
        if (file, key) not in embeddings:
            continue
        impersonating, templates, wanted = goal != DODGE, verifiers[key].templates, case.targets[goal]
        vectors = embeddings[file, key]
        before, after = (
            verification.similarities(part, templates)[np.arange(len(wanted)), wanted]
            for part in (embeddings[("", "clean"), key], vectors)
        )
        columns: dict[str, Any] = {
            "goal": goal,
            **{name: value for name, value in condition._asdict().items() if name not in ("title", "scale")},
            **{"recogniser": key[0], "in_front": key[1], "row": rows, "person": names[case.owners]},
            "target": names[wanted] if impersonating else "",
            "similarity_before": before,
            "similarity": after,
            "found": ~np.isnan(vectors).any(axis=1),
            "linf": np.rint(255 * distances[file][:, 0]).astype(int),
            "ssim": distances[file][:, 3],
        }
        for far, threshold in verifiers[key].thresholds.items():
            columns[f"right_{far:g}"] = (before >= threshold) != impersonating
            columns[f"fooled_{far:g}"] = (after >= threshold) == impersonating
        tables.append(pd.DataFrame(columns).rename(columns={"name": "condition"}))
    return pd.concat(tables, ignore_index=True)


def file_key(goal: str, condition: Condition) -> GoalAndCondition:
    """Return the goal and condition of a set of faces; clean ones and noise are the same for all goals."""
    return goal if condition.method else "", condition.name


def _files(case: AttackCase, conditions: Sequence[Condition]) -> Iterator[tuple[str, Condition]]:
    """Yield goal and condition once for each set of faces."""
    for condition in conditions:
        for goal in list(case.targets)[: None if condition.method else 1]:
            yield goal, condition

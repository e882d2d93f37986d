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
from visor.evaluation.conditions import Condition
from visor.evaluation.image_distances import distance_summary, image_distances
from visor.evaluation.recognition import verification
from visor.evaluation.recognition.attacks import AttackedFaces, FaceBatches, condition_images
from visor.evaluation.recognition.verification import EnrolmentSplit, FaceCropper, RecogniserAndCropper, Verifier

if TYPE_CHECKING:
    from visor.models.features import Embed

GoalAndCondition = tuple[str, str]
Embeddings = dict[tuple[GoalAndCondition, RecogniserAndCropper], Floats]  # embeddings (n, d)

VERIFICATION_GOALS = ("impersonate", "dodge")


class AttackCase(NamedTuple):
    """Faces (n,) to attack, and the indices of their people and of their targets in ``names``."""

    faces: AttackedFaces
    owners: Rows
    targets: Rows
    names: list[str]


def enrol_all(
    faces: FaceSet,
    splits: Sequence[EnrolmentSplit],
    croppers: Mapping[str, FaceCropper],
    embeds: Mapping[str, Embed],
    settings: RecognitionAttackParams,
) -> dict[RecogniserAndCropper, Verifier]:
    """Return the verifier of each recogniser behind each cropper; ``splits``: (calibration, attacked)."""
    parts = [part for split in splits for part in (split.enrolled, split.probes)]
    images = FaceBatches(faces, np.concatenate(parts), settings.batch).stream()
    ends = np.cumsum([len(part) for part in parts])[:-1]
    verifiers = {}
    for key, vectors in verification.embed_all(images, croppers, embeds).items():
        first, second, third, fourth = np.split(vectors, ends)
        verifiers[key] = verification.verifier(splits, [(first, second), (third, fourth)], settings.false_accept_rates)
    return verifiers


def choose_victims(
    faces: FaceSet, split: EnrolmentSplit, surrogate: Verifier, settings: RecognitionAttackParams, folder: Path
) -> AttackCase:
    """Choose the faces to attack, evenly spaced over the probes of the attacked people, and their targets.

    Raises:
        UserError: The named target is not among these people.
    """
    names, templates = [faces.label_names[person] for person in split.people], surrogate.templates
    targets = nearest = choose_targets(templates, min(surrogate.thresholds.values()), settings.target)
    if settings.target in names:
        named = names.index(settings.target)
        targets = np.where(np.arange(len(names)) == named, nearest, named)  # The target's own faces aim at the nearest.
    elif settings.target not in ("nearest", "furthest"):
        raise UserError(
            f"params.yaml: recognition_attack.target is {settings.target!r}; "
            f"choose nearest, furthest, {', '.join(names)}"
        )
    chosen = evenly_spaced(settings.images, len(split.probes))
    owners = split.probes_of[chosen]
    clean = FaceBatches(faces, split.probes[chosen], settings.batch)
    wanted = {"impersonate": templates[targets[owners]], "dodge": templates[owners]}
    wanted = {goal: vectors.astype(np.float32) for goal, vectors in wanted.items()}
    return AttackCase(AttackedFaces(clean, wanted, folder), owners, targets[owners], names)


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
    for goal, condition in _files(conditions):
        batches = condition_images(goal, condition, case.faces, seed)
        for key, vectors in verification.embed_all(batches, croppers, embeds).items():
            results[file_key(goal, condition), key] = vectors


def measure_distances(
    case: AttackCase, conditions: Sequence[Condition], seed: int, results: dict[GoalAndCondition, dict[str, float]]
) -> None:
    """Add to ``results`` the distances of the faces under these conditions from the clean ones."""
    for goal, condition in _files(conditions):
        pairs = zip(case.faces.clean.stream(), condition_images(goal, condition, case.faces, seed), strict=True)
        distances = np.concatenate([image_distances(*images) for images in pairs])
        results[file_key(goal, condition)] = distance_summary(distances)


def score_faces(
    case: AttackCase,
    conditions: Sequence[Condition],
    verifiers: Mapping[RecogniserAndCropper, Verifier],
    embeddings: Embeddings,
) -> pd.DataFrame:
    """Return a row per goal, condition, recogniser, cropper and face: similarity to the person the goal is about.

    For each false-accept rate, ``right``: the clean face was not accepted as the target, or was accepted as itself;
    ``fooled``: the contrary after the attack. A face that is not found is accepted as no one.
    """
    names, rows, tables = np.array(case.names), case.faces.clean.rows, []
    for goal, condition, key in product(VERIFICATION_GOALS, conditions, verifiers):
        if (file_key(goal, condition), key) not in embeddings:
            continue
        impersonating, templates = goal == "impersonate", verifiers[key].templates
        wanted = case.targets if impersonating else case.owners
        vectors = embeddings[file_key(goal, condition), key]
        before, after = (
            verification.similarities(part, templates)[np.arange(len(wanted)), wanted]
            for part in (embeddings[("", "clean"), key], vectors)
        )
        columns: dict[str, Any] = {
            "goal": goal,
            **{name: value for name, value in condition._asdict().items() if name != "title"},
            **{"recogniser": key[0], "in_front": key[1], "row": rows, "person": names[case.owners]},
            "target": names[case.targets] if impersonating else "",
            "similarity_before": before,
            "similarity": after,
            "found": ~np.isnan(vectors).any(axis=1),
        }
        for far, threshold in verifiers[key].thresholds.items():
            columns[f"right_{far:g}"] = (before >= threshold) != impersonating
            columns[f"fooled_{far:g}"] = (after >= threshold) == impersonating
        tables.append(pd.DataFrame(columns).rename(columns={"name": "condition"}))
    return pd.concat(tables, ignore_index=True)


def file_key(goal: str, condition: Condition) -> GoalAndCondition:
    """Return the goal and condition of a set of faces; clean ones and noise are the same for all goals."""
    return goal if condition.method else "", condition.name


def _files(conditions: Sequence[Condition]) -> Iterator[tuple[str, Condition]]:
    """Yield goal and condition once for each set of faces."""
    for condition in conditions:
        for goal in VERIFICATION_GOALS if condition.method else VERIFICATION_GOALS[:1]:
            yield goal, condition

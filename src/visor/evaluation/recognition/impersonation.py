"""Impersonation and dodging: whom each face shall be taken for, and what recognisers make of what was done to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.params import RecognitionAttackParams
from visor.core.types import Floats, Rows
from visor.data.face_set import FaceSet
from visor.evaluation.image_distances import distance_summary, image_distances
from visor.evaluation.recognition.attacks import AttackedFaces, Condition, FaceBatches, condition_images
from visor.evaluation.recognition.verification import (
    Embed,
    EnrolmentSplit,
    FaceCropper,
    Verifier,
    embed_all,
    similarities,
    verifier,
)

RecogniserAndCropper = tuple[str, str]  # a recogniser, and the way that faces take to it
GoalAndCondition = tuple[str, str]  # a goal and a condition
Embeddings = dict[tuple[GoalAndCondition, RecogniserAndCropper], Floats]  # embeddings (n, d)

VERIFICATION_GOALS = ("impersonate", "dodge")


class AttackCase(NamedTuple):
    """Who is attacked (n faces), and the places of their people and of their targets among the attacked people."""

    victims: AttackedFaces
    owners: Rows
    targets: Rows
    names: list[str]


def enrol_all(
    faces: FaceSet,
    rolls: Sequence[EnrolmentSplit],
    ways: Mapping[str, FaceCropper],
    embeds: Mapping[str, Embed],
    settings: RecognitionAttackParams,
) -> dict[RecogniserAndCropper, Verifier]:
    """Return the verifier of each recogniser at the end of each way; rolls: (calibration, attacked)."""
    parts = [part for roll in rolls for part in (roll.enrolled, roll.probes)]
    images = FaceBatches(faces, np.concatenate(parts), settings.batch).stream()
    ends = np.cumsum([len(part) for part in parts])[:-1]
    found = {}
    for key, vectors in embed_all(images, ways, embeds).items():
        first, second, third, fourth = np.split(vectors, ends)
        found[key] = verifier(rolls, [(first, second), (third, fourth)], settings.false_accept_rates)
    return found


def choose_victims(
    faces: FaceSet, roll: EnrolmentSplit, known: Verifier, settings: RecognitionAttackParams, folder: Path
) -> AttackCase:
    """Return the faces to attack, evenly over the probes of the attacked people, and whom they shall be taken for.

    known: these people, as the surrogate knows them.

    Raises:
        UserError: nobody of the target's name is among them.
    """
    names, templates = [faces.label_names[label] for label in roll.people], known.templates
    targets = nearest = choose_targets(templates, min(known.thresholds.values()), settings.target)
    if settings.target in names:
        named = names.index(settings.target)
        targets = np.where(np.arange(len(names)) == named, nearest, named)  # one's own faces go for the nearest
    elif settings.target not in ("nearest", "furthest"):
        raise UserError(
            f"params.yaml: recognition_attack.target is {settings.target!r}; "
            f"choose nearest, furthest, {', '.join(names)}"
        )
    chosen = np.unique(np.linspace(0, len(roll.probes) - 1, settings.images).astype(int))
    owners = roll.probes_of[chosen]
    clean = FaceBatches(faces, roll.probes[chosen], settings.batch)
    wanted = {"impersonate": templates[targets[owners]], "dodge": templates[owners]}
    victims = AttackedFaces(clean, {goal: own.astype(np.float32) for goal, own in wanted.items()}, folder)
    return AttackCase(victims, owners, targets[owners], names)


def choose_targets(templates: Floats, threshold: float, target: str) -> Rows:
    """Return for each of k people the other one who is most like, or least if ``target`` is furthest.

    Who passes for somebody without an attack, at this threshold, is nobody's nearest as long as there are others.
    """
    alike = similarities(templates, templates)
    others = ~np.eye(len(templates), dtype=bool)
    if target == "furthest":
        return np.where(others, alike, np.inf).argmin(axis=1)
    apart = others & (alike < threshold)
    return np.where(apart | (others & ~apart.any(axis=1, keepdims=True)), alike, -np.inf).argmax(axis=1)


def embed_conditions(
    case: AttackCase,
    plan: Sequence[Condition],
    ways: Mapping[str, FaceCropper],
    embeds: Mapping[str, Embed],
    seed: int,
    seen: Embeddings,
) -> None:
    """Add to ``seen`` what all recognisers make of the faces under the conditions of a plan, shown in these ways."""
    for goal, each in _files(plan):
        for key, vectors in embed_all(condition_images(goal, each, case.victims, seed), ways, embeds).items():
            seen[file_key(goal, each), key] = vectors


def measure_distances(
    case: AttackCase, plan: Sequence[Condition], seed: int, changes: dict[GoalAndCondition, dict[str, float]]
) -> None:
    """Add to ``changes`` how far the faces under the conditions of a plan are from the clean ones."""
    for goal, each in _files(plan):
        both = zip(case.victims.clean.stream(), condition_images(goal, each, case.victims, seed), strict=True)
        changes[file_key(goal, each)] = distance_summary(np.concatenate([image_distances(*images) for images in both]))


def score_faces(
    case: AttackCase, plan: Sequence[Condition], known: Mapping[RecogniserAndCropper, Verifier], seen: Embeddings
) -> pd.DataFrame:
    """Return a line a goal, condition, recogniser, way and face: similarities to the one that the goal is about.

    For each false-accept rate ``right``: was the clean face not accepted as the target, or accepted as itself? And
    ``fooled``: the contrary. A face that is not found is accepted as nobody.
    """
    lines = []
    for goal in VERIFICATION_GOALS:
        for each in plan:
            for key in known:
                if (file_key(goal, each), key) in seen:
                    lines.append(_lines(goal, each, key, case, known[key], seen))
    return pd.concat(lines, ignore_index=True)


def file_key(goal: str, each: Condition) -> GoalAndCondition:
    """Return the goal and condition that faces are of: clean ones and noise know no goal."""
    return goal if each.method else "", each.name


def _files(plan: Sequence[Condition]) -> Iterator[tuple[str, Condition]]:
    """Yield goal and condition once for each set of faces that there is."""
    for each in plan:
        for goal in VERIFICATION_GOALS if each.method else VERIFICATION_GOALS[:1]:
            yield goal, each


def _lines(
    goal: str, each: Condition, key: RecogniserAndCropper, case: AttackCase, known: Verifier, seen: Embeddings
) -> pd.DataFrame:
    """Return the lines of one condition, recogniser and way."""
    impersonated = goal == "impersonate"
    wanted = case.targets if impersonated else case.owners
    clean, vectors = seen[("", "clean"), key], seen[file_key(goal, each), key]
    before, after = (similarities(own, known.templates)[np.arange(len(wanted)), wanted] for own in (clean, vectors))
    names = np.array(case.names)
    columns: dict[str, Any] = {
        "goal": goal,
        **{name: value for name, value in each._asdict().items() if name != "title"},
        "recogniser": key[0],
        "in_front": key[1],
        "row": case.victims.clean.rows,
        "person": names[case.owners],
        "target": names[case.targets] if impersonated else "",
        "similarity_before": before,
        "similarity": after,
        "found": ~np.isnan(vectors).any(axis=1),
    }
    for rate, threshold in known.thresholds.items():
        columns[f"right_{rate:g}"] = (before >= threshold) != impersonated
        columns[f"fooled_{rate:g}"] = (after >= threshold) == impersonated
    return pd.DataFrame(columns).rename(columns={"name": "condition"})

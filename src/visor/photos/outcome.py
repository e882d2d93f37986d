"""Outcome of an attack for each face and network, measured before it and on the saved file."""

from typing import Any, Literal, NamedTuple

import numpy as np

from visor.core.types import Floats
from visor.evaluation.boxes import MATCH_IOU, TOUCH_IOU, face_outcomes, iou
from visor.models.detectors import Detections, Detector
from visor.photos.identify import RecognisedFace

TARGETED_GOALS = ("impersonate", "target_class")  # These succeed by a match, the others without one.
GOAL_OUTPUTS = {"impersonate": "embed", "dodge": "embed", "misclassify": "logits", "target_class": "logits"}


class NetworkOutcome(NamedTuple):
    """Result of one network on one face, before the attack and on the saved file; None where it is undefined."""

    face: int  # index of the face
    network: str
    kind: Literal["detector", "recogniser"]
    attacked: bool  # whether the attack used this network
    before: bool | None  # whether the face was detected or matched
    after: bool | None
    score_before: float | None  # detection score, cosine similarity or class probability
    score_after: float | None
    threshold: float  # score from which a face counts as detected or matched; not used for classes
    label: str = ""  # vanished, moved or still there; matched, not matched or not found


class AttackGoal(NamedTuple):
    """Goal of an attack on one face."""

    name: str  # key of GOAL_OUTPUTS and RECOGNISER_LOSSES
    target: Any  # embedding (d,) of a person, or number of a class
    threshold: float  # cosine similarity from which two faces count as one person; not used for classes
    label: str = "itself"  # name of the target for people


def best_overlapping_scores(detections: Detections, boxes: Floats, min_iou: float) -> list[float | None]:
    """Return the best score of a detection that overlaps each box (k, 4) by ``min_iou``; None if there is none."""
    overlaps = iou(boxes, detections.boxes) >= min_iou
    return [float(detections.scores[row].max()) if row.any() else None for row in overlaps]


def detector_outcomes(
    detector: Detector, boxes: Floats, before: Detections, after: Detections, attacked: bool = True
) -> list[NetworkOutcome]:
    """Compare what a detector finds at face boxes (k, 4) before and after.

    A face is detected where a box overlaps it by ``MATCH_IOU``; one that was detected before remains detected until no
    box overlaps it by ``TOUCH_IOU``. What is detected neither before nor after has no result after.
    """
    first_scores, last_scores, touching_scores = (
        best_overlapping_scores(*case)
        for case in ((before, boxes, MATCH_IOU), (after, boxes, MATCH_IOU), (after, boxes, TOUCH_IOU))
    )
    outcomes = []
    for face, label in enumerate(face_outcomes(boxes, after.boxes)):
        first = first_scores[face]
        last = last_scores[face] if first is None else touching_scores[face]
        detected = None if first is None and last is None else last is not None
        states = (first is not None, detected, first, last, detector.threshold, label)
        outcomes.append(NetworkOutcome(face, detector.name, "detector", attacked, *states))
    return outcomes


def recogniser_outcome(
    face: int,
    network: str,
    goal: AttackGoal,
    before: RecognisedFace,
    after: RecognisedFace,
    found: bool = True,
    attacked: bool = True,
) -> NetworkOutcome:
    """Compare a face before and after with the target of a goal; a face that is not ``found`` is not matched."""
    matched = found and is_match(goal, after)
    label = "not found" if not found else "matched" if matched else "not matched"
    states = is_match(goal, before), matched, match_score(goal, before), match_score(goal, after)
    return NetworkOutcome(face, network, "recogniser", attacked, *states, goal.threshold, label)


def match_score(goal: AttackGoal, face: RecognisedFace) -> float:
    """Return the cosine similarity to the target of a goal, or the probability of its class."""
    if GOAL_OUTPUTS[goal.name] == "embed":
        return round(float(face.embedding @ goal.target), 6)  # Rounded: a face is exactly as similar as 1 to itself.
    return float(face.probabilities[goal.target])


def is_match(goal: AttackGoal, face: RecognisedFace) -> bool:
    """Return whether a face is verified as the target of a goal, or classified as its class."""
    if GOAL_OUTPUTS[goal.name] == "embed":
        return match_score(goal, face) >= goal.threshold
    return int(np.argmax(face.probabilities)) == int(goal.target)


def is_success(goal: AttackGoal, outcome: NetworkOutcome) -> bool:
    """Return whether the outcome reaches the goal."""
    return outcome.after == (goal.name in TARGETED_GOALS)

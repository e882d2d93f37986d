"""What is written of the attacks on one recogniser: metrics, tables and pictures, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from visor.core.params import RecognitionAttackParams
from visor.data.face_set import FaceSet
from visor.data.identity_split import split_identities
from visor.data.split import set_rows
from visor.evaluation.plots import recognition
from visor.evaluation.recognition import classification, tables
from visor.evaluation.recognition.attacks import Condition, attack_jobs, conditions, strongest_conditions
from visor.evaluation.recognition.impersonation import (
    AttackCase,
    Embeddings,
    GoalAndCondition,
    RecogniserAndCropper,
    choose_victims,
    embed_conditions,
    enrol_all,
    measure_distances,
    score_faces,
)
from visor.evaluation.recognition.verification import (
    NO_DETECTOR,
    Embed,
    FaceCropper,
    Verifier,
    detector_cropper,
    no_detector,
    split_enrolment,
    verification_metrics,
)
from visor.models.detectors import Detector
from visor.models.recognisers.base import Recogniser, embeddings, probabilities
from visor.models.training import run_in_threads

Job = Callable[[], None]


class Findings(NamedTuple):
    """All that was measured with the attacks on one surrogate."""

    case: AttackCase
    verifiers: dict[RecogniserAndCropper, Verifier]
    faces: pd.DataFrame  # a line a goal, condition, recogniser, way and face
    changes: dict[GoalAndCondition, dict[str, float]]  # by goal and condition: how far from the clean faces
    answers: classification.ClassPredictions | None  # of a surrogate that knows classes


def evaluate_surrogate(
    surrogate: str,
    recognisers: Mapping[str, Recogniser],
    detectors: Mapping[str, Detector],
    faces: FaceSet,
    table: pd.DataFrame,
    settings: RecognitionAttackParams,
    seed: int,
    folder: Path,
) -> Findings:
    """Attack ``surrogate`` under every condition and show what came of it to all recognisers.

    They see the crop as it was attacked and, for clean faces and the last strength, what each of the ``detectors``
    makes of it. ``table`` is that of the split. Attacked faces are written to ``folder/GOAL`` and read back.

    Raises:
        UserError: people, images or pairs do not suffice, or the target is not among the people who are attacked.
    """
    attacked, plan = recognisers[surrogate], conditions(settings)
    embeds = {name: embeddings(each) for name, each in recognisers.items()}
    rows = np.sort(table.loc[table["set"] != "unused", "row"].to_numpy())
    people = split_identities(table, settings.held_out_share, seed)
    rolls = [
        split_enrolment(faces.labels, half, people.held_out, settings.pairs, seed) for half in (rows[::2], rows[1::2])
    ]
    plain, in_front = (
        {NO_DETECTOR: no_detector},
        {name: detector_cropper(each, settings.margin) for name, each in detectors.items()},
    )
    known = enrol_all(faces, rolls, plain, embeds, settings)
    case = choose_victims(faces, rolls[1], known[surrogate, NO_DETECTOR], settings, folder)
    jobs: list[Job] = list(attack_jobs(attacked.embed, case.victims, plan, settings, seed))
    answers, logits = None, attacked.logits
    if logits:
        test = set_rows(table, "test")
        test = test[np.isin(faces.labels[test], people.trained)]
        answers = classification.prepare(attacked, probabilities(attacked), faces, test, settings, folder)
    if logits and answers:
        jobs += attack_jobs(logits, answers.victims, strongest_conditions(plan, settings), settings, seed)
    if in_front:
        jobs.append(lambda: known.update(enrol_all(faces, rolls, in_front, embeds, settings)))
    run_in_threads(jobs)
    seen, changes = _show_conditions(case, plan, (plain, in_front), embeds, answers, settings, seed)
    return Findings(case, known, score_faces(case, plan, known, seen), changes, answers)


def _show_conditions(
    case: AttackCase,
    plan: list[Condition],
    ways: tuple[Mapping[str, FaceCropper], Mapping[str, FaceCropper]],
    embeds: Mapping[str, Embed],
    answers: classification.ClassPredictions | None,
    settings: RecognitionAttackParams,
    seed: int,
) -> tuple[Embeddings, dict[GoalAndCondition, dict[str, float]]]:
    """Return what all recognisers make of the attacked faces, and how far these are from the clean ones.

    ways: as it is, under every condition of the plan, and behind detectors. ``answers`` are asked on the way.
    """
    seen: Embeddings = {}
    changes: dict[GoalAndCondition, dict[str, float]] = {}
    plain, in_front = ways
    jobs: list[Job] = [
        partial(embed_conditions, case, plan, plain, embeds, seed, seen),
        partial(measure_distances, case, plan, seed, changes),
        partial(embed_conditions, case, strongest_conditions(plan, settings, jpeg=False), in_front, embeds, seed, seen),
    ]
    if answers:
        jobs.append(partial(classification.predict_conditions, answers, strongest_conditions(plan, settings), seed))
    run_in_threads(jobs)
    return seen, changes


def metrics_of(found: Findings, name: str, settings: RecognitionAttackParams) -> dict[str, Mapping[str, Any]]:
    """Return verification by recogniser and way, and what the surrogate suffered by goal and condition."""
    verification: dict[str, dict[str, Any]] = {}
    for (recogniser, way), known in found.verifiers.items():
        verification.setdefault(recogniser, {})[way] = verification_metrics(known, settings.false_accept_rates)
    suffered = tables.surrogate_metrics(tables.success_rates(found.faces), name, found.changes)
    return {
        "verification": verification,
        **suffered,
        **(classification.classification_metrics(found.answers) if found.answers else {}),
    }


def texts_of(found: Findings, name: str, settings: RecognitionAttackParams) -> dict[str, str]:
    """Return files: what became of each face, and tables for people."""
    titles = {each.name: each.title for each in conditions(settings)}
    rates = tables.rates_of(found.faces)
    suffered = tables.surrogate_metrics(tables.success_rates(found.faces), name, found.changes)
    texts = {
        "faces.csv": found.faces.to_csv(index=False, float_format="%.6g"),
        "table.md": tables.recognition_table(suffered, titles, name, rates),
    }
    return {**texts, "top.md": classification.markdown(classification.top_tables(found.answers, settings), name)}


def top_of(found: Findings, settings: RecognitionAttackParams) -> dict[str, Any]:
    """Return whom some ``faces`` are most likely taken for, before and after."""
    return {"faces": classification.top_tables(found.answers, settings)}


def curves_of(found: Findings, name: str) -> str:
    """Return success by size as CSV."""
    table = tables.curves(tables.success_rates(found.faces), name, tables.rates_of(found.faces))
    return table.to_csv(index=False, float_format="%.6g")


def draw(found: Findings, name: str, settings: RecognitionAttackParams, seed: int, folder: Path) -> None:
    """Save ``roc.png``, ``success.png``, ``similarities.png`` and, for each method, ``faces_METHOD.png``."""
    table, last = tables.success_rates(found.faces), settings.strengths[-1]
    recognition.roc_curves(found.verifiers, folder / "roc.png")
    recognition.success_by_eps(tables.curves(table, name, tables.rates_of(found.faces)), name, folder / "success.png")
    recognition.similarities(found.faces, found.verifiers, last.eps, folder / "similarities.png")
    for each in conditions(settings):
        if each.kind == "attack" and (each.eps, each.iterations) == (last.eps, last.iterations):
            recognition.sheet(found.case, each, settings.report_faces, seed, folder / f"faces_{each.method}.png")

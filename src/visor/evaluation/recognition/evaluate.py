"""Attack one recogniser and evaluate all of them: metrics, tables and figures, by name."""

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
from visor.evaluation.conditions import NO_DETECTOR, recognition_conditions, strongest_conditions
from visor.evaluation.image_distances import distance_summary
from visor.evaluation.plots import recognition as plots
from visor.evaluation.recognition import attacks, impersonation, photographs, tables, verification
from visor.evaluation.recognition.verification import FaceCropper
from visor.models.detectors import Detector
from visor.models.recognisers.base import Recogniser, embeddings
from visor.models.training import run_in_threads


class RecognitionFindings(NamedTuple):
    """All measurements of the attacks on one surrogate."""

    surrogate: str
    settings: RecognitionAttackParams
    seed: int
    case: impersonation.AttackCase
    verifiers: dict[verification.RecogniserAndCropper, verification.Verifier]
    faces: pd.DataFrame  # a row per goal, condition, recogniser, cropper and face
    success: pd.DataFrame  # a row per goal, condition, recogniser and cropper
    distances: dict[impersonation.GoalAndCondition, dict[str, float]]  # from the clean faces


def evaluate_surrogate(
    surrogate: str,
    recognisers: Mapping[str, Recogniser],
    detectors: Mapping[str, Detector],
    faces: FaceSet,
    table: pd.DataFrame,
    settings: RecognitionAttackParams,
    seed: int,
    folder: Path,
) -> RecognitionFindings:
    """Attack ``surrogate`` under every condition and evaluate all recognisers on the attacked faces.

    They get the crop as it was attacked and, for clean faces and the last strength, what each of the ``detectors``
    crops from it. ``table`` is that of the split. Attacked faces are written to ``folder/GOAL`` and read back.

    Raises:
        UserError: There are too few people, videos or pairs, or the target is not among the people who are attacked.
    """
    attacked, conditions = recognisers[surrogate], recognition_conditions(settings)
    strongest = strongest_conditions(conditions, settings.strengths)
    embeds = {name: embeddings(recogniser) for name, recogniser in recognisers.items()}
    rows = np.sort(table.loc[table["set"] != "unused", "row"].to_numpy())
    people = split_identities(table, settings.held_out_share, seed)
    split = verification.split_enrolment(faces, rows, people.held_out, settings.pairs, seed)
    direct, croppers = _croppers(recognisers, detectors, settings)
    verifiers = impersonation.enrol_all(faces, split, direct, embeds, settings)
    case = impersonation.choose_victims(faces, split, verifiers[surrogate, NO_DETECTOR], settings, folder)
    if settings.photo_side:
        case = case._replace(faces=case.faces._replace(places=photographs.crop_places(attacked, settings.margin)))

    jobs: list[Callable[[], None]] = list(attacks.attack_jobs(attacked.embed, case.faces, conditions, settings, seed))
    if croppers:
        jobs.append(lambda: verifiers.update(impersonation.enrol_all(faces, split, croppers, embeds, settings)))
    run_in_threads(jobs)

    vectors: impersonation.Embeddings = {}
    distances: impersonation.Distances = {}
    as_attacked = [condition for condition in strongest if condition.kind not in ("jpeg", "scaled")]
    jobs = [
        partial(impersonation.embed_conditions, case, conditions, direct, embeds, seed, vectors),
        partial(impersonation.measure_distances, case, conditions, seed, distances),
        partial(impersonation.embed_conditions, case, as_attacked, croppers, embeds, seed, vectors),
    ]
    run_in_threads(jobs)
    scored = impersonation.score_faces(case, conditions, verifiers, vectors, distances)
    success = tables.success_rates(scored)
    summaries = {key: distance_summary(values) for key, values in distances.items()}
    return RecognitionFindings(surrogate, settings, seed, case, verifiers, scored, success, summaries)


def _croppers(
    recognisers: Mapping[str, Recogniser], detectors: Mapping[str, Detector], settings: RecognitionAttackParams
) -> tuple[dict[str, FaceCropper], dict[str, FaceCropper]]:
    """Return what recognisers look at without a detector in front of them, and behind each of the ``detectors``."""
    if settings.photo_side:
        direct = photographs.photo_cropper(photographs.locate_by_mtcnn, recognisers, settings.margin)
        croppers = {
            name: photographs.photo_cropper(photographs.detector_locator(detector), recognisers, settings.margin)
            for name, detector in detectors.items()
        }
    else:
        direct = verification.no_detector
        croppers = {name: verification.detector_cropper(each, settings.margin) for name, each in detectors.items()}
    if settings.cropping_jpeg:
        croppers = {name: verification.behind_jpeg(each, settings.cropping_jpeg) for name, each in croppers.items()}
    return {NO_DETECTOR: direct}, croppers


def metrics_of(findings: RecognitionFindings) -> dict[str, dict[str, Any]]:
    """Return verification by recogniser and cropper, and the metrics of the surrogate by goal and condition."""
    by_recogniser: dict[str, dict[str, Any]] = {}
    for (recogniser, cropper), verifier in findings.verifiers.items():
        metrics = verification.verification_metrics(verifier, findings.settings.false_accept_rates, findings.seed)
        by_recogniser.setdefault(recogniser, {})[cropper] = metrics
    surrogate = tables.surrogate_metrics(findings.success, findings.surrogate, findings.distances)
    return {"verification": by_recogniser, **surrogate}


def texts_of(findings: RecognitionFindings) -> dict[str, str]:
    """Return the text files: the result for each face, and Markdown tables."""
    titles = {condition.name: condition.title for condition in recognition_conditions(findings.settings)}
    metrics = tables.surrogate_metrics(findings.success, findings.surrogate, findings.distances)
    return {
        "faces.csv": findings.faces.to_csv(index=False, float_format="%.6g"),
        "table.md": tables.recognition_table(metrics, titles, findings.surrogate, tables.rates_of(findings.faces)),
    }


def curves_of(findings: RecognitionFindings) -> pd.DataFrame:
    """Return success on the surrogate by eps."""
    return tables.curves(findings.success, findings.surrogate, tables.rates_of(findings.faces))


def draw(findings: RecognitionFindings, folder: Path) -> None:
    """Save ``roc.png``, ``success.png``, ``similarities.png`` and, for each method, ``faces_METHOD.png``."""
    settings = findings.settings
    plots.roc_curves(findings.verifiers, folder / "roc.png")
    plots.success_by_eps(curves_of(findings), findings.surrogate, folder / "success.png")
    plots.similarities(findings.faces, findings.verifiers, settings.strengths[-1].eps, folder / "similarities.png")
    for condition in strongest_conditions(recognition_conditions(settings), settings.strengths, ("attack",)):
        plots.sheet(
            findings.case, condition, settings.report_faces, findings.seed, folder / f"faces_{condition.method}.png"
        )

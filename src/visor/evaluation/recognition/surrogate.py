"""How well recognisers of faces are fooled by attacks on one of them, the surrogate.

Thresholds are set and people enrolled first, as attacks need them; what does not depend on one another runs in two
threads: attacks and detectors in front of recognisers, then what each way shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from visor.detectors import Detector
from visor.evaluation.recognition import classes
from visor.evaluation.recognition.attacks import Condition, attack_jobs, conditions, of_last
from visor.evaluation.recognition.pairs import Case, Cell, Key, Seen, choose, enrol_all, judge, look, measure
from visor.evaluation.recognition.verification import Verifier, call
from visor.evaluation.recognition.ways import NONE, Embed, Way, as_it_is, behind
from visor.faces import FaceSet
from visor.params import Recognition
from visor.people import of
from visor.recognisers.recogniser import Recogniser, embeddings, probabilities
from visor.split import rows_of
from visor.training import run_side_by_side

Job = Callable[[], None]


class Findings(NamedTuple):
    """All that was measured with the attacks on one surrogate."""

    case: Case
    verifiers: dict[Key, Verifier]
    faces: pd.DataFrame  # a line a goal, condition, recogniser, way and face
    changes: dict[Cell, dict[str, float]]  # by goal and condition: how far from the clean faces
    answers: classes.Answers | None  # of a surrogate that knows classes


def evaluate(
    surrogate: str,
    recognisers: Mapping[str, Recogniser],
    detectors: Mapping[str, Detector],
    faces: FaceSet,
    table: pd.DataFrame,
    settings: Recognition,
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
    people = of(table, settings.unseen, seed)
    rolls = [call(faces.labels, half, people.unseen, settings.pairs, seed) for half in (rows[::2], rows[1::2])]
    plain, in_front = {NONE: as_it_is}, {name: behind(each, settings.margin) for name, each in detectors.items()}
    known = enrol_all(faces, rolls, plain, embeds, settings)
    case = choose(faces, rolls[1], known[surrogate, NONE], settings, folder)
    jobs: list[Job] = list(attack_jobs(attacked.embed, case.victims, plan, settings, seed))
    answers, logits = None, attacked.logits
    if logits:
        test = rows_of(table, "test")
        test = test[np.isin(faces.labels[test], people.trained)]
        answers = classes.prepare(attacked, probabilities(attacked), faces, test, settings, folder)
    if logits and answers:
        jobs += attack_jobs(logits, answers.victims, of_last(plan, settings), settings, seed)
    if in_front:
        jobs.append(lambda: known.update(enrol_all(faces, rolls, in_front, embeds, settings)))
    run_side_by_side(jobs)
    seen, changes = _shown(case, plan, (plain, in_front), embeds, answers, settings, seed)
    return Findings(case, known, judge(case, plan, known, seen), changes, answers)


def _shown(
    case: Case,
    plan: list[Condition],
    ways: tuple[Mapping[str, Way], Mapping[str, Way]],
    embeds: Mapping[str, Embed],
    answers: classes.Answers | None,
    settings: Recognition,
    seed: int,
) -> tuple[Seen, dict[Cell, dict[str, float]]]:
    """Return what all recognisers make of the attacked faces, and how far these are from the clean ones.

    ways: as it is, under every condition of the plan, and behind detectors. ``answers`` are asked on the way.
    """
    seen: Seen = {}
    changes: dict[Cell, dict[str, float]] = {}
    plain, in_front = ways
    jobs: list[Job] = [
        partial(look, case, plan, plain, embeds, seed, seen),
        partial(measure, case, plan, seed, changes),
        partial(look, case, of_last(plan, settings, jpeg=False), in_front, embeds, seed, seen),
    ]
    if answers:
        jobs.append(partial(classes.ask, answers, of_last(plan, settings), seed))
    run_side_by_side(jobs)
    return seen, changes

"""The spread of numbers over seeds: the bound of one more run, the file, and what a run replaces."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from tests.support.project import ROOT
from visor.core.config import load_params
from visor.core.errors import UserError
from visor.core.files import read_metrics
from visor.core.params import GateParams
from visor.report.study import (
    STUDY,
    Run,
    Study,
    add_run,
    prediction_bounds,
    read_study,
    study_table,
    write_study,
)

AP = [0.93, 0.95, 0.92, 0.96, 0.94, 0.9, 0.95, 0.93]


def run(seed, *stages):
    return Run(seed=seed, stages=stages, commit="0123abc", machine={"processor": "Z80"})


def test_bounds_are_those_of_one_more_normal_value():
    mean, error = np.mean(AP), np.std(AP, ddof=1) * math.sqrt(1 + 1 / len(AP))
    expected = stats.t.interval(0.98, len(AP) - 1, loc=mean, scale=error)
    assert prediction_bounds(AP) == pytest.approx(expected)
    assert prediction_bounds(AP).low == pytest.approx(mean - 3.18 * np.std(AP, ddof=1), abs=1e-4), "3.2 sd at n = 8"


def test_the_lowest_and_the_highest_seen_are_within():
    far = [*[0.5] * 60, 0.9]
    assert prediction_bounds(far).high == 0.9
    assert prediction_bounds([1 - value for value in far]).low == pytest.approx(0.1)
    assert prediction_bounds([1.0] * 8) == (1.0, 1.0)


def test_one_more_value_is_mostly_within():
    """Each bound is missed by 1 % of further values."""
    drawn = np.random.default_rng(0).normal(size=(4000, 9))
    bounds = np.array([prediction_bounds(row[:8].tolist()) for row in drawn])
    assert np.mean(drawn[:, 8] < bounds[:, 0]) == pytest.approx(0.01, abs=0.004)
    assert np.mean(drawn[:, 8] > bounds[:, 1]) == pytest.approx(0.01, abs=0.004)


def test_a_study_is_read_as_it_was_written(tmp_path):
    study = add_run(add_run(Study(), run(11), {"b:x": 0.5, "a:y": 1}), run(12), {"b:x": 0.25, "c:z": 2})
    write_study(tmp_path, study)
    assert read_study(tmp_path) == study
    assert study.values("b:x") == [0.5, 0.25]
    assert study.values("c:z") == [2]
    assert study.values("gone:x") == []
    lines = (tmp_path / STUDY).read_text().splitlines()
    assert '"a:y": [1.0, null],' in lines, "a line for each number"
    assert read_study(tmp_path / "absent") == Study()


def test_values_of_other_stages_are_another_study():
    whole, alone = run(11), run(12, "train_detectors", "evaluate_detection@ssd")
    study = add_run(add_run(Study(), whole, {"ssd:ap": 0.9, "asr": 1}), alone, {"ssd:ap": 0.8})
    assert study.values("ssd:ap") == [0.8]
    assert study.values("asr") == [1]


@pytest.mark.parametrize(
    "text",
    ["[]", '{"runs": 3}', '{"runs": [], "numbers": {"a:x": [1]}}', '{"numbers": {"a:x": ["1"]}, "more": 1}', "{"],
)
def test_a_file_of_another_form_is_one_sentence(tmp_path, text):
    (tmp_path / STUDY).parent.mkdir()
    (tmp_path / STUDY).write_text(text)
    with pytest.raises(UserError, match=r"reference/study\.json (is not|has a number)"):
        read_study(tmp_path)


def test_the_table_has_the_gates_that_were_studied():
    study = Study()
    for seed, value in enumerate(AP):
        study = add_run(study, run(seed), {"ssd:ap": value})
    (head, _, row) = (
        study_table(study, {"ssd:ap": GateParams(min=0.8), "b:x": GateParams(max=1)}).to_markdown().split("\n")
    )
    assert head == "| metric | n | mean | sd | lowest | highest | bound below | bound above | gate's min | gate's max |"
    assert row == "| ssd:ap | 8 | 0.935 | 0.01927 | 0.9 | 0.96 | 0.8737 | 0.9963 | 0.8 |  |"


# --- the project's own


def test_no_gate_is_tighter_than_the_spread():
    study = read_study(ROOT)
    for name, gate in load_params(ROOT / "params.yaml").gates.items():
        if len(values := study.values(name)) >= 8:
            low, high = prediction_bounds(values)
            assert gate.min is None or gate.min <= low, f"{name} is at least {low:.6g}"
            assert gate.max is None or gate.max >= high, f"{name} is at most {high:.6g}"


def test_every_studied_number_exists():
    assert read_study(ROOT).numbers.keys() <= read_metrics(ROOT / "metrics").keys()
    if (ROOT / STUDY).exists():
        assert json.loads((ROOT / STUDY).read_text())["runs"]

"""Gates: bounds, their boundaries, the committed baseline and the two reports."""

import math
import subprocess
from xml.etree import ElementTree

import pytest

from visor.core.errors import UserError
from visor.core.files import numeric_leaves, read_metrics, write_json
from visor.core.params import GateParams
from visor.report.gates import check_gates, gate_table, junit, read_baseline

NAME = "backdoor/accessory:asr"


def problem(value, bounds, before=None):
    metrics = {} if value is None else {NAME: value}
    baseline = {} if before is None else {NAME: before}
    (result,) = check_gates(metrics, baseline, {NAME: GateParams(**bounds)})
    assert result.metric == NAME
    return result.problem


@pytest.mark.parametrize(
    ("value", "bounds", "before"),
    [
        (0.95, {"min": 0.95}, None),
        (0.95, {"max": 0.95}, None),
        (0.95, {"max_change": 0.05}, 0.9),  # 0.95 - 0.9 > 0.05 in binary
        (0.85, {"max_change": 0.05}, 0.9),
        (0.7, {"max_change": 0.0}, 0.7),
        (0.7, {"max_change": 0.01}, None),
        (0.7, {"max_change": 0.01}, math.nan),
        (-3.0, {}, None),
    ],
)
def test_kept(value, bounds, before):
    assert problem(value, bounds, before) == ""


@pytest.mark.parametrize(
    ("value", "bounds", "before", "expected"),
    [
        (0.949999, {"min": 0.95}, None, "below 0.95"),
        (0.950001, {"max": 0.95}, None, "above 0.95"),
        (0.950001, {"max_change": 0.05}, 0.9, "changed by 0.050001, more than 0.05"),
        (0.849999, {"max_change": 0.05}, 0.9, "changed by 0.050001, more than 0.05"),
        (None, {"min": 0.5}, None, "missing"),
        (None, {"max_change": 0.5}, 0.9, "missing"),
        (None, {}, None, "missing"),
        (math.nan, {"min": 0.5}, None, "not a finite number"),
        (math.nan, {"max_change": 0.5}, math.nan, "not a finite number"),
        (math.inf, {"min": 0.5}, None, "not a finite number"),
        (-math.inf, {}, None, "not a finite number"),
        (0.5, {"min": 0.75, "max_change": 0.125}, 1.0, "below 0.75; changed by 0.5, more than 0.125"),
    ],
)
def test_breached(value, bounds, before, expected):
    assert problem(value, bounds, before) == expected


RESULTS = check_gates(
    {"threshold:fpr": 0.25, NAME: 0.5, "vae:auroc": 0.96875},
    {NAME: 0.75, "vae:auroc": 0.96875},
    {
        NAME: GateParams(min=0.625, max_change=0.125),
        "threshold:fpr": GateParams(max=0.5, max_change=0.25),
        "vae:auroc": GateParams(),
        "vae:gone.away": GateParams(min=0.5),
    },
)


def test_markdown():
    assert gate_table(RESULTS, "origin/main").to_markdown().splitlines() == [
        "| metric | value | origin/main | bounds | verdict |",
        "|---|---|---|---|---|",
        "| backdoor/accessory:asr | 0.5 | 0.75 | ≥ 0.625, change ≤ 0.125 "
        "| **breach**: below 0.625; changed by 0.25, more than 0.125 |",
        "| threshold:fpr | 0.25 | none | ≤ 0.5, change ≤ 0.25 | ok |",
        "| vae:auroc | 0.96875 | 0.96875 | present | ok |",
        "| vae:gone.away | none | none | ≥ 0.5 | **breach**: missing |",
    ]


def test_junit():
    suite = ElementTree.fromstring(junit(RESULTS))
    assert (suite.tag, suite.get("tests"), suite.get("failures")) == ("testsuite", "4", "2")
    cases = [(case.get("classname"), case.get("name"), len(case)) for case in suite]
    assert cases == [
        ("backdoor/accessory", "asr", 1),
        ("threshold", "fpr", 0),
        ("vae", "auroc", 0),
        ("vae", "gone.away", 1),
    ]
    assert [failure.get("message") for failure in suite.iter("failure")] == [
        "below 0.625; changed by 0.25, more than 0.125",
        "missing",
    ]


def test_read_metrics(tmp_path):
    write_json(tmp_path / "backdoor" / "accessory.json", {"asr": 0.5, "auroc": {"vae": 1}, "roc": [0.1, 0.2]})
    (tmp_path / "threshold.json").write_text('{"fpr": NaN, "by": "frame", "ok": true, "none": null}')
    (tmp_path / "history.csv").write_text("epoch\n1\n")
    metrics = read_metrics(tmp_path)
    assert list(metrics) == ["backdoor/accessory:asr", "backdoor/accessory:auroc.vae", "threshold:fpr"]
    assert metrics["backdoor/accessory:asr"] == 0.5
    assert metrics["backdoor/accessory:auroc.vae"] == 1.0
    assert math.isnan(metrics["threshold:fpr"])
    assert read_metrics(tmp_path / "absent") == {}
    (tmp_path / "cut.json").write_text('{"fpr": ')
    with pytest.raises(UserError, match=r"cut\.json is not JSON"):
        read_metrics(tmp_path)


def test_numbers_of_a_list_or_a_number():
    assert numeric_leaves([1, 2]) == {}
    assert numeric_leaves({"a": {"b": {"c": 2}}, "d": {}}) == {"a.b.c": 2.0}


@pytest.fixture
def committed(tmp_path):
    """A repository whose first revision has asr 0.75 and whose second has 0.875; the workspace has 0.5."""

    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    git("init", "-q")
    for value in (0.75, 0.875):
        write_json(tmp_path / "metrics" / "backdoor" / "accessory.json", {"asr": value, "n": {"train": 7}})
        git("add", "-A")
        git("commit", "-qm", str(value))
    write_json(tmp_path / "metrics" / "backdoor" / "accessory.json", {"asr": 0.5})
    write_json(tmp_path / "metrics" / "new.json", {"asr": 0.5})
    return tmp_path


GATES = {NAME: GateParams(max_change=0.25), "new:asr": GateParams(max_change=0.25), "other:x": GateParams(min=0)}


@pytest.mark.parametrize(("revision", "asr", "breaches"), [("HEAD", 0.875, 1), ("HEAD~1", 0.75, 0)])
def test_baseline_is_the_committed_one(committed, revision, asr, breaches):
    baseline = read_baseline(committed, revision, GATES)
    assert baseline == {NAME: asr, "backdoor/accessory:n.train": 7.0}
    results = check_gates({**read_metrics(committed / "metrics"), "other:x": 0.0}, baseline, GATES)
    assert [bool(result.problem) for result in results] == [bool(breaches), False, False]


@pytest.mark.parametrize("revision", ["absent", "HEAD~2", "--help", ""])
def test_unknown_revision(committed, revision):
    with pytest.raises(UserError, match="is not a revision of this repository"):
        read_baseline(committed, revision, GATES)


def test_committed_file_that_is_not_json(committed):
    (committed / "metrics" / "backdoor" / "accessory.json").write_text("{")
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "x"], cwd=committed, check=True
    )
    with pytest.raises(UserError, match=r"metrics/backdoor/accessory\.json of HEAD is not JSON"):
        read_baseline(committed, "HEAD", GATES)

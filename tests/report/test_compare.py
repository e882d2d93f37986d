"""Comparing the numbers of a run with a commit: kinds, spreads, the machine, and the words."""

import json
import math
import subprocess

import pytest

from visor.core.errors import UserError
from visor.core.files import write_json
from visor.report.compare import PROVENANCE, compare_with, kind_of, record_machine, summary
from visor.report.machine import describe_machine
from visor.report.study import Run, Study, add_run, write_study

MACHINE = {"processor": "Z80", "threads": "2"}
LOCK = """
stages:
  train:
    cmd: python stages/train.py
    deps:
    - path: data
      md5: {data}
    - path: stages/train.py
      md5: {code}
    params:
      params.yaml:
        seed: {seed}
  track:
    cmd: python stages/track.py
    deps:
    - path: src/visor/tracking
      md5: {track}
"""


def studied(**numbers):
    """Return a study of the values of each number, named without their file."""
    study = Study()
    for place, values in enumerate(zip(*numbers.values(), strict=True)):
        run = Run(seed=place, stages=(), commit="", machine={})
        study = add_run(study, run, {f"a:{name}": value for name, value in zip(numbers, values, strict=True)})
    return study


SPREAD = studied(ap=[0.9, 0.92, 0.94, 0.96])


@pytest.mark.parametrize(
    ("name", "now", "before", "kind"),
    [
        ("ap", {"ap": 0.5}, {"ap": 0.5}, "same"),
        ("ap", {"ap": math.nan}, {"ap": math.nan}, "same"),
        ("ap", {"ap": 0.85}, {"ap": 0.97}, "within"),  # of the study, wherever the committed value lies
        ("ap", {"ap": 0.97}, {"ap": 0.95, "ap_low": 0.94, "ap_high": 0.96}, "within"),  # the study comes first
        ("ap", {"ap": 0.7}, {"ap": 0.92}, "outside"),
        ("ap", {"ap": math.nan}, {"ap": 0.92}, "outside"),
        ("asr", {"asr": 0.9}, {"asr": 0.95, "asr_low": 0.9, "asr_high": 0.99}, "within"),
        ("asr", {"asr": 0.89}, {"asr": 0.95, "asr_low": 0.9, "asr_high": 0.99}, "outside"),
        ("asr_low", {"asr": 0.96, "asr_low": 0.92}, {"asr": 0.95, "asr_low": 0.9, "asr_high": 0.99}, "within"),
        ("asr_high", {"asr": 0.89, "asr_high": 0.9}, {"asr": 0.95, "asr_low": 0.9, "asr_high": 0.99}, "outside"),
        ("faces", {"faces": 61}, {"faces": 60}, "unknown"),
        ("faces", {"faces": 61}, {}, "new"),
        ("faces", {}, {"faces": 61}, "gone"),
    ],
)
def test_kinds(name, now, before, kind):
    named = ({f"a:{key}": value for key, value in numbers.items()} for numbers in (now, before))
    assert kind_of(f"a:{name}", *named, SPREAD) == kind


@pytest.fixture
def project(tmp_path):
    """A repository with numbers, a lock and a machine, all committed; another machine made its first revision."""

    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    git("init", "-q")
    write(tmp_path, asr=0.5, asr_low=0.25, asr_high=0.75, faces=60)
    lock(tmp_path)
    write_study(tmp_path, SPREAD)
    record_machine(tmp_path, {**MACHINE, "processor": "6502"})
    git("add", "-A")
    git("commit", "-qm", "a")
    record_machine(tmp_path, MACHINE)
    git("commit", "-qam", "b")
    return tmp_path


def write(root, **numbers):
    write_json(root / "metrics/a.json", numbers)


def lock(root, **values):
    (root / "dvc.lock").write_text(LOCK.format(**{"data": "d", "code": "c", "seed": 11, "track": "t", **values}))


def test_the_same(project):
    result = compare_with(project, "HEAD", MACHINE)
    assert summary(result) == "all 4 numbers are the same bytes as in HEAD"
    assert not result.is_unexplained
    assert summary(compare_with(project, "HEAD~1", MACHINE)) == "all 4 numbers are the same bytes as in HEAD~1"


def test_other_numbers_of_the_same_machine_and_code_are_not_explained(project):
    write(project, asr=0.9, asr_low=0.8, asr_high=0.95, faces=60)
    result = compare_with(project, "HEAD", MACHINE)
    assert summary(result).splitlines() == [
        "1 same bytes, 3 outside their spread",
        "",
        "| outside | here | HEAD | spread |",
        "|---|---|---|---|",
        "| a:asr | 0.9 | 0.5 | 0.25 to 0.75 |",
        "",
        "machine: processor, instruction set, threads and packages as in HEAD",
        "code and params: as in HEAD",
    ]
    assert result.is_unexplained
    write(project, asr=0.5, asr_low=0.25, asr_high=0.75, faces=61)
    assert compare_with(project, "HEAD", MACHINE).is_unexplained, "a number without a spread must not change either"


@pytest.mark.parametrize(
    ("change", "explained"),
    [({"code": "x"}, True), ({"seed": 12}, True), ({"data": "x"}, False), ({"track": "x"}, False)],
)
def test_other_code_and_params_explain_other_numbers(project, change, explained):
    """What an earlier stage made does not: it has its own entry."""
    write(project, asr=0.25, faces=60)
    lock(project, **change)
    result = compare_with(project, "HEAD", MACHINE)
    assert (result.code, result.is_unexplained) == (not explained, not explained)


def test_another_machine_explains_other_numbers(project):
    write(project, asr=0.6, asr_low=0.25, asr_high=0.75, faces=60)
    result = compare_with(project, "HEAD~1", {**MACHINE, "keras": "3.15"})
    assert summary(result).splitlines()[-2:] == [
        "machine: differs from HEAD~1 in processor Z80 (6502); keras 3.15 (none)",
        "code and params: as in HEAD~1",
    ]
    assert summary(result).startswith("3 same bytes, 1 within their spread\n")
    assert not result.is_unexplained


def test_a_revision_without_a_record(project):
    subprocess.run(["git", "rm", "-q", "--cached", str(PROVENANCE), "dvc.lock"], cwd=project, check=True)
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "c"], cwd=project, check=True)
    write(project, asr=0.6)
    result = compare_with(project, "HEAD", MACHINE)
    assert "machine: HEAD has no reference/provenance.json\ncode and params: not as in HEAD" in summary(result)
    assert not result.is_unexplained


@pytest.mark.parametrize("revision", ["v9", "", "--help"])
def test_unknown_revision(project, revision):
    with pytest.raises(UserError, match="is not a revision of this repository"):
        compare_with(project, revision, MACHINE)


def test_this_machine():
    machine = describe_machine(3)
    assert machine["instruction set"] == "unknown" or "AVX2" in machine["instruction set"], "visor.core.tf limits it"
    assert machine["threads"] == "3"
    assert json.loads(json.dumps(machine)) == machine
    assert {"processor", "system", "python", "tensorflow", "keras", "numpy"} <= machine.keys()

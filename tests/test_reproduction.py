"""The pipeline's promises, on a tiny copy: the same bytes again, no stage too many, whole after ``kill -9``."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import random_images
from tests.tiny import EPOCHS, ROOT, attempt, changes, clone, commit, copy, edit, environment, make, ran, run
from visor.faces import Block, open_faces, write_faces

pytestmark = pytest.mark.slow

ALL_STAGES = {
    "download",
    "artifacts/raw",  # its import as data/
    "split",
    "evaluate_baselines",
    "poison@input_instance",
    "poison@accessory",
    "poison@eyebrows",
    "train_classifier@deepid-clean",
    "train_classifier@deepid-accessory",
    "evaluate_backdoor@deepid",
    "train_vae",
    "score_defence@reconstruction",
    "threshold@reconstruction",
    "evaluate_defence@reconstruction",
    "track",
}
LOCKED = ("dvc.lock", "data.dvc")

# Runs in every Python below a `dvc repro` that is to be killed: the wanted stage stops itself just before the
# nth of its files gets its final name. No code of the project knows of it.
STOP = """
import os, signal, sys
left = [int(os.environ["STOP_BEFORE"])]
def watch(event, arguments):
    if event == "os.rename" and str(arguments[0]).endswith(".part"):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGSTOP)
if " ".join(sys.orig_argv[1:]) == os.environ["STOP_IN"]:
    sys.addaudithook(watch)
"""


def without_network():
    """Words in front of a command that take its network away, where the system allows that."""
    words = ["unshare", "--net", "--map-root-user"]
    return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else []


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """The tiny project after its first `dvc repro`, from nothing and without network, committed."""
    root = make(tmp_path_factory.mktemp("reproduced"))
    assert set(ran(run(root, *without_network(), "dvc", "repro"))) == ALL_STAGES
    commit(root)
    return root


@pytest.fixture
def project(reproduced, tmp_path):
    return copy(reproduced, tmp_path / "project")


def repro(root, *words):
    """Names of the stages that `dvc repro` ran."""
    return ran(run(root, "dvc", "repro", *words))


# --- what runs, and what does not


def test_second_repro_runs_nothing(project):
    output = run(project, "dvc", "repro")
    assert ran(output) in ([], ["track"]), "a copy without MLflow's runs"
    assert repro(project) == []
    assert changes(project) == ""


def test_one_attack_reruns_alone_and_going_back_runs_nothing(project):
    edit(project, backdoors__accessory__n=4)
    touched = {"poison@accessory", "train_classifier@deepid-accessory", "evaluate_backdoor@deepid", "track"}
    assert set(repro(project)) == touched

    params = json.loads(run(project, "dvc", "params", "diff", "--json"))
    assert params["params.yaml"] == {"backdoors.accessory.n": {"old": 9, "new": 4, "diff": -5}}
    metrics = json.loads(run(project, "dvc", "metrics", "diff", "--json"))
    assert metrics["metrics/backdoor/deepid/accessory.json"]["n"] == {"old": 9, "new": 4, "diff": -5}
    assert all(name.startswith("metrics/backdoor/deepid/") for name in metrics), "no other number changed"

    run(project, "git", "checkout", "--", "params.yaml")
    assert repro(project) == ["track"], "all else comes from the cache"
    assert changes(project) == ""
    assert run(project, "dvc", "params", "diff", "--json").strip() == "{}"
    assert run(project, "dvc", "metrics", "diff", "--json").strip() == "{}"


def test_a_threshold_reruns_what_is_cheap(project):
    edit(project, defences__reconstruction__deviations=0.5)
    touched = {"threshold@reconstruction", "evaluate_defence@reconstruction", "track"}
    assert set(repro(project)) == touched
    metrics = json.loads(run(project, "dvc", "metrics", "diff", "--json"))
    assert metrics["metrics/threshold/reconstruction.json"]["deviations"] == {"old": 1.0, "new": 0.5, "diff": -0.5}
    assert metrics["metrics/threshold/reconstruction.json"]["threshold"]["diff"] < 0


def test_a_comment_runs_nothing(project):
    repro(project)
    params = project / "params.yaml"
    params.write_text("# a thought\n" + params.read_text())
    assert repro(project) == []


def test_lock_fits_until_code_or_params_change(project):
    assert attempt(project, "visor", "lock").returncode == 0
    code = project / "src/visor/metrics.py"
    for change in (lambda: code.write_text(code.read_text() + "\n# a thought\n"), lambda: edit(project, seed=2)):
        change()
        done = attempt(project, "visor", "lock")
        assert done.returncode == 1
        assert done.stderr.startswith("error: dvc.lock or data.dvc is stale from ")
        run(project, "git", "checkout", "--", "src", "params.yaml")
    assert attempt(project, "visor", "lock").returncode == 0


# --- the user's own data, as docs/data.md says


def documented(*words):
    """The shell block of docs/data.md that holds ``words``: its commands, without comments."""
    blocks = (ROOT / "docs/data.md").read_text().split("```\n")[1::2]
    (block,) = [block for block in blocks if all(word in block for word in words)]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


def test_own_data_and_back(project, tmp_path):
    names, count = ["cleo", "dan", "person_000"], 36
    labels = np.repeat(np.arange(len(names), dtype=np.int32), count)
    rows = np.arange(len(labels), dtype=np.int32)
    block = Block(random_images(len(rows), height=40, width=32), labels, rows, rows)
    write_faces(tmp_path / "own/faces.h5", [block], (40, 32, 3), names, "mine", "mine")

    *before, last = documented("rm -rf data data.dvc", "dvc add data")
    assert last == "dvc repro"
    for line in before:
        run(project, "sh", "-ec", line.replace("/your/folder", str(tmp_path / "own")))
    assert set(repro(project)) == ALL_STAGES - {"download", "artifacts/raw"}
    assert open_faces(project / "artifacts/poisoned/accessory.h5").label_names == tuple(names)
    assert "deps" not in (project / "data.dvc").read_text()
    assert repro(project) == []

    *back, last = documented("git checkout -- data.dvc", "dvc repro")
    assert last == "dvc repro"
    for line in back:
        run(project, "sh", "-ec", line)
    assert set(repro(project)) <= {"artifacts/raw", "track"}, "all else comes from the cache"
    assert changes(project) == ""


# --- kill -9


def interrupted(root, moment, tmp_path, victims="all", **stop):
    """Start `dvc repro`, kill -9 at the ``moment``, a condition on what runs, and return what dvc printed."""
    (tmp_path / "sitecustomize.py").write_text(STOP)
    own = environment(root)
    own |= {"PYTHONPATH": f"{tmp_path}:{own['PYTHONPATH']}", "STOP_IN": "", "STOP_BEFORE": "0", **stop}
    log = tmp_path / "log"
    with log.open("w") as out:
        dvc = psutil.Popen(["dvc", "repro"], cwd=root, env=own, stdout=out, stderr=out, start_new_session=True)
        deadline = time.monotonic() + 120
        while not (found := moment(running := dvc.children(recursive=True))):
            assert dvc.poll() is None, f"the moment never came\n{log.read_text()}"
            assert time.monotonic() < deadline, f"the moment does not come\n{log.read_text()}"
            time.sleep(0.01)
        for process in [dvc, *running] if victims == "all" else [found]:
            process.kill()
        assert dvc.wait(30) != 0
        psutil.wait_procs(running, 10)
        assert not [process for process in running if process.is_running()], "a process outlived its parent"
    return log.read_text()


def stopped(processes):
    """The process that stopped itself."""
    for process in processes:
        try:
            if process.status() == psutil.STATUS_STOPPED:
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def drawing(processes):
    """The `download` that has its worker processes."""
    for process in processes:
        try:
            if "stages/download.py" in process.cmdline() and len(process.children()) > os.cpu_count():
                return process
        except psutil.NoSuchProcess:
            continue
    return None


# (stage, its command, before which of its files, what is then whole, what is not)
MOMENTS = [
    ("download", "stages/download.py", 1, [], ["artifacts/raw/faces.h5"]),
    ("split", "stages/split.py", 3, ["artifacts/split.csv"], ["artifacts/poisoned/clean.h5"]),
    (
        "poison@accessory",
        "stages/poison.py accessory",
        2,
        ["artifacts/poisoned/accessory.h5"],
        ["artifacts/triggered/accessory.h5", "plots/poison-accessory.png"],
    ),
    (
        "train_classifier@deepid-clean",
        "stages/train_classifier.py deepid clean",
        EPOCHS,
        ["metrics/history/deepid-clean.csv"],
        ["artifacts/classifier/deepid/clean/model.weights.h5"],
    ),
    (
        "train_classifier@deepid-accessory",
        "stages/train_classifier.py deepid accessory",
        EPOCHS + 2,
        ["artifacts/classifier/deepid/accessory/model.weights.h5"],
        ["artifacts/classifier/deepid/accessory/model.json"],
    ),
    (
        "evaluate_backdoor@deepid",
        "stages/evaluate_backdoor.py deepid",
        2,
        [],
        [],
    ),
    ("train_vae", "stages/train_vae.py", 2, ["metrics/history/vae.csv"], ["artifacts/vae/model.weights.h5"]),
    (
        "score_defence@reconstruction",
        "stages/score_defence.py reconstruction",
        2,
        ["artifacts/scores/reconstruction.csv"],
        ["plots/reconstruction-sheet.png"],
    ),
    (
        "evaluate_defence@reconstruction",
        "stages/evaluate_defence.py reconstruction",
        4,
        [],
        ["plots/reconstruction-roc.png"],
    ),
]


def test_killed_in_every_stage_a_fresh_clone_ends_with_the_same_bytes(reproduced, tmp_path):
    """Also the proof that nothing differs between two runs: without the kills it would be the same clone."""
    root = clone(reproduced, tmp_path / "clone")
    hook = tmp_path / "hook"
    hook.mkdir()
    interrupted(root, drawing, hook, victims="stage")
    assert not (root / "artifacts/raw/faces.h5").exists()
    last = "download"
    for stage, command, before, whole, absent in MOMENTS:
        log = interrupted(root, stopped, hook, STOP_IN=command, STOP_BEFORE=str(before))
        names = ran(log)
        assert (names[0], names[-1]) == (last, stage), "what was killed runs again, and what follows"
        assert [name for name in whole if not (root / name).exists()] == []
        assert [name for name in absent if (root / name).exists()] == []
        if last.startswith("train_classifier"):
            assert f"0/{EPOCHS}" in log, "a training that has to be repeatable starts again"
        last = stage
    assert repro(root) == [last, "track"]
    assert changes(root) == ""
    for name in LOCKED:
        assert (root / name).read_bytes() == (reproduced / name).read_bytes()
    assert repro(root) == []


@pytest.mark.parametrize(("deterministic", "epochs"), [(False, EPOCHS - 1), (True, EPOCHS)])
def test_a_killed_training_goes_on_unless_it_has_to_be_repeatable(project, tmp_path, deterministic, epochs):
    edit(project, compute__deterministic=deterministic, seed=1)
    stage, command = "train_classifier@deepid-clean", "stages/train_classifier.py deepid clean"
    raise NotImplementedError(stage, command, epochs, shutil, signal, Path)

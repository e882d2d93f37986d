"""The pipeline's promises, on a tiny copy: the same bytes again, no stage too many, whole after ``kill -9``."""

import json
import re
import shutil
import subprocess
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
from ruamel.yaml import YAML

from tests.conftest import random_images
from tests.support.tiny_project import (
    EPOCHS,
    ROOT,
    attempt,
    changes,
    clone,
    commit,
    copy,
    edit,
    environment,
    make,
    ran,
    run,
)
from visor.core.config import load_params
from visor.core.files import SPARE_BYTES, read_metrics
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.report.study import STUDY, read_study

pytestmark = pytest.mark.slow

DETECTION = {"train_detectors", "evaluate_detection@ssd", "evaluate_transfer"}
ALL_STAGES = {
    *DETECTION,
    "train_recognisers",
    "evaluate_recognition@vgg_face",
    "evaluate_classification@vgg_face",
    "summarise_recognition",
    "download",
    "artifacts/raw",  # its import as data/
    "split",
    "evaluate_baselines",
    "poison",
    "train_classifiers@clean",
    "train_classifiers@accessory",
    "evaluate_backdoor",
    "evaluate_verification",
    "poison_budget",
    "inspect_networks",
    "train_vae",
    "adaptive_attacks",
    "score_defences",
    "threshold",
    "evaluate_defences",
    "report",
    "track",
}

# Runs in every Python below a `dvc repro` that is to be killed: the wanted stage notes the final name of each file
# that it has finished, and stops itself just before one of them gets it for the nth time. It is told by name, as
# threads side by side end in any order. No code of the project knows of this.
STOP = """
import os, signal, sys
left = [int(os.environ["STOP_NTH"])]
def watch(event, arguments):
    if event == "os.rename" and str(arguments[0]).endswith(".part"):
        left[0] -= str(arguments[1]) == os.environ["STOP_BEFORE"]
        if not left[0]:
            signal.raise_signal(signal.SIGSTOP)  # this very thread; a signal to the process may stop another first
        with open(os.environ["STOP_LOG"], "a") as log:
            print(arguments[1], file=log)
if " ".join(sys.orig_argv[1:]) == os.environ["STOP_IN"]:
    sys.addaudithook(watch)
"""

# Runs in every Python below a stage of `dvc repro`, whose name DVC tells: notes which files it reads, with the name of
# the stage. HDF5 files are opened in C, past Python's audit.
WATCH = """
import os, sys
stage = os.environ.get("DVC_STAGE")
if stage:
    import h5py
    log = os.open(os.environ["READ_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def note(name, log=log, stage=stage, named=(str, os.PathLike), path=os.path, write=os.write):
        if isinstance(name, named):
            write(log, f"{stage} {path.relpath(name)}\\n".encode())
    def watch(event, arguments, note=note):
        if event == "open" and not arguments[2] & 3:
            note(arguments[0])
    def open_file(self, name, mode="r", *more, real=h5py.File.__init__, **named):
        if mode == "r":
            note(name)
        real(self, name, mode, *more, **named)
    h5py.File.__init__ = open_file
    sys.addaudithook(watch)
"""
PATIENCE = 600  # seconds for what happens at once on an idle machine
MADE_OR_GIVEN = ("artifacts/", "assets/", "data/", "metrics/", "plots/")


def without_network():
    """Words in front of a command that take its network away, where the system allows that."""
    words = ["unshare", "--net", "--map-root-user"]
    return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else []


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """The tiny project after its first `dvc repro`, from nothing and without network, committed."""
    root, hook = make(tmp_path_factory.mktemp("reproduced")), tmp_path_factory.mktemp("hook")
    (hook / "sitecustomize.py").write_text(WATCH)
    watched = {"PYTHONPATH": f"{hook}:{environment(root)['PYTHONPATH']}", "READ_LOG": str(root / ".dvc/tmp/read")}
    done = attempt(root, *without_network(), "dvc", "repro", **watched)
    assert set(ran(done.stdout)) == ALL_STAGES, done.stderr
    commit(root)
    return root


@pytest.fixture
def project(reproduced, tmp_path):
    return copy(reproduced, tmp_path / "project")


def repro(root, *words):
    """Names of the stages that `dvc repro` ran."""
    return ran(run(root, "dvc", "repro", *words))


# --- what runs, and what does not


def test_a_stage_reads_what_it_depends_on(reproduced):
    lock = YAML(typ="safe").load(reproduced / "dvc.lock")["stages"]
    listed = {stage: [item["path"] for item in [*entry["deps"], *entry["outs"]]] for stage, entry in lock.items()}
    read = {tuple(line.split(" ", 1)) for line in (reproduced / ".dvc/tmp/read").read_text().splitlines()}
    made = {(stage, path) for stage, path in read if stage in lock and path.startswith(MADE_OR_GIVEN)}
    assert {stage for stage, _ in made} >= lock.keys() - {"download"}, "all were watched"
    unlisted = {
        (stage, path)
        for stage, path in made
        if not any(path == item or path.startswith(f"{item}/") for item in listed[stage])
    }
    assert unlisted == set()


def test_second_repro_runs_nothing(project):
    output = run(project, "dvc", "repro")
    assert ran(output) in ([], ["track"]), "a copy without MLflow's runs"
    assert repro(project) == []
    assert changes(project) == ""


def test_one_attack_reruns_alone_and_going_back_runs_nothing(project):
    edit(project, backdoors__accessory__n=4)
    touched = set(repro(project))
    assert {name for name in touched if name.startswith("train")} == {"train_classifiers@accessory"}
    assert touched.isdisjoint({"download", "split", "evaluate_baselines"})

    params = json.loads(run(project, "dvc", "params", "diff", "--json"))
    assert params["params.yaml"] == {"backdoors.accessory.n": {"old": 9, "new": 4, "diff": -5}}
    metrics = json.loads(run(project, "dvc", "metrics", "diff", "--json"))
    assert metrics["metrics/backdoor/deepid/accessory.json"]["n"] == {"old": 9, "new": 4, "diff": -5}
    others = ("split", "faces", "baselines", "backdoor/deepid/clean", "defence/reconstruction/clean")
    assert not [name for name in metrics if name.startswith(tuple(f"metrics/{other}" for other in others))]

    run(project, "git", "checkout", "--", "params.yaml")
    assert repro(project) == ["track"], "all else comes from the cache"
    assert changes(project) == ""
    assert run(project, "dvc", "params", "diff", "--json").strip() == "{}"
    assert run(project, "dvc", "metrics", "diff", "--json").strip() == "{}"


def test_a_threshold_reruns_what_is_cheap(project):
    edit(project, defences__reconstruction__deviations=0.5)
    touched = {"threshold", "evaluate_defences", "report", "track"}
    assert set(repro(project)) == touched
    metrics = json.loads(run(project, "dvc", "metrics", "diff", "--json"))
    assert metrics["metrics/threshold/reconstruction.json"]["deviations"] == {"old": 1.0, "new": 0.5, "diff": -0.5}
    assert metrics["metrics/threshold/reconstruction.json"]["threshold"]["diff"] < 0


def test_a_comment_runs_only_what_copies_the_params_and_changes_nothing(project):
    repro(project)
    params = project / "params.yaml"
    params.write_text("# a thought\n" + params.read_text())
    page = (project / "artifacts/report.html").read_bytes()
    assert set(repro(project)) == {"report", "track"}
    assert (project / "artifacts/report.html").read_bytes() == page
    assert {line.split()[-1] for line in changes(project).splitlines()} == {"dvc.lock", "params.yaml"}


def test_lock_fits_until_code_or_params_change(project):
    assert attempt(project, "visor", "lock").returncode == 0
    code = project / "src/visor/evaluation/metrics.py"
    for change in (lambda: code.write_text(code.read_text() + "\n# a thought\n"), lambda: edit(project, seed=2)):
        change()
        done = attempt(project, "visor", "lock")
        assert done.returncode == 2
        assert done.stderr.startswith("error: dvc.lock or data.dvc is stale from ")
        run(project, "git", "checkout", "--", "src", "params.yaml")
    assert attempt(project, "visor", "lock").returncode == 0


def test_a_study_gives_other_seeds_to_the_stages_it_names(project):
    words = ["visor", "study", "--seeds", "2", "--jobs", "2", "--stages", "evaluate_baselines"]
    assert re.search(r"^seed \d+ is recorded; 0 left", run(project, *words), re.MULTILINE)
    study = read_study(project)
    numbers, seed = read_metrics(project / "metrics"), load_params(project / "params.yaml").seed
    assert {(run.seed, run.stages) for run in study.runs} == {
        (each, ("evaluate_baselines",)) for each in (seed, seed + 1)
    }
    own = [run.seed for run in study.runs].index(seed)
    assert study.runs[own].commit == run(project, "git", "rev-parse", "HEAD").strip()
    assert {name.partition(":")[0] for name in study.numbers} == {"baselines"}
    for name in study.numbers:
        assert study.values(name)[own] == float(f"{numbers[name]:.6g}"), "the run with the seed of params.yaml"
        assert len(study.values(name)) == 2
    whole = (project / STUDY).read_bytes()
    assert "is recorded" not in run(project, *words), "both seeds are there"
    assert (project / STUDY).read_bytes() == whole
    assert changes(project) == "?? reference/\n"
    assert not [*(project / ".dvc/tmp").glob("study-*")]


# --- the user's own data, as docs/data.md says


def documented(*words):
    """The shell block of docs/data.md that holds ``words``: its commands, without comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "docs/data.md").read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if all(word in block for word in words)]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


def test_own_data_and_back(project, tmp_path):
    names, count = ["cleo", "dan", "eve", "person_000"], 42
    labels = np.repeat(np.arange(len(names), dtype=np.int32), count)
    rows = np.arange(len(labels), dtype=np.int32)
    block = FaceBatch(random_images(len(rows), height=40, width=32), labels, rows, rows)
    write_faces(tmp_path / "own/faces.h5", [block], (40, 32, 3), names, "mine", "mine")
    shutil.copy(project / "artifacts/raw/scenes.h5", tmp_path / "own")

    *before, last = documented("dvc add data")
    assert last == "dvc repro"
    for line in before:
        run(project, "sh", "-ec", line.replace("/your/folder", str(tmp_path / "own")))
    assert set(repro(project)) == ALL_STAGES - {"download", "artifacts/raw"} - DETECTION, "scenes are as they were"
    assert open_faces(project / "artifacts/poisoned/accessory.h5").label_names == tuple(names)
    assert "deps" not in (project / "data.dvc").read_text()
    assert repro(project) == []

    *back, last = documented("git checkout -- data.dvc")
    assert last == "dvc repro"
    for line in back:
        run(project, "sh", "-ec", line)
    assert set(repro(project)) <= {"artifacts/raw", "track"}, "all else comes from the cache"
    assert changes(project) == ""


# --- kill -9


def hooked(root, folder, command, before="", nth=1):
    """The environment of the project, with the stop in it: before a file gets its name for the nth time."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(STOP)
    (folder / "log").unlink(missing_ok=True)
    own = environment(root)
    stop = {"STOP_IN": command, "STOP_BEFORE": before, "STOP_NTH": str(nth), "STOP_LOG": str(folder / "log")}
    return own | stop | {"PYTHONPATH": f"{folder}:{own['PYTHONPATH']}"}


def finished(folder):
    """Final names of the files that the watched stage finished, in order."""
    return (folder / "log").read_text().split()


def interrupted(root, moment, own, victims="all"):
    """Start `dvc repro`, kill -9 at the ``moment``, a question to what runs, and return what dvc printed."""
    log = root.parent / "dvc.log"
    with log.open("w") as out:
        dvc = psutil.Popen(["dvc", "repro"], cwd=root, env=own, stdout=out, stderr=out)
        while not (found := first(moment, running := dvc.children(recursive=True))):
            assert dvc.poll() is None, f"the moment never came\n{log.read_text()}"
            time.sleep(0.05)  # to look takes a millisecond
        for process in [dvc, *running] if victims == "all" else [found]:
            process.kill()
        assert dvc.wait(PATIENCE) != 0
        _, alive = psutil.wait_procs(running, PATIENCE)
        assert alive == [], "a process outlived its parent"
    return log.read_text()


def first(moment, processes):
    """The first process, if any, of which the answer is yes; one may end while it is asked."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if moment(process):
                return process
    return None


def stopped(process):
    return process.status() == psutil.STATUS_STOPPED


def drawing(process):
    """Whether it is a `download` that has its worker processes."""
    return "stages/download.py" in process.cmdline() and len(process.children()) >= 2


# (stage, its command, what is whole by the time it dies, what is not: the first is the file it dies over)
CLASSIFIER, CLASSIFY = "artifacts/classifier", "stages/train_classifiers.py"
MOMENTS = [
    ("download", "stages/download.py", [], ["artifacts/raw/faces.h5"]),
    ("split", "stages/split.py", ["artifacts/split.csv"], ["metrics/split.json"]),
    ("evaluate_baselines", "stages/evaluate_baselines.py", [], ["metrics/baselines.json"]),
    (
        "poison",
        "stages/poison.py",
        ["artifacts/poisoned/input_instance.h5", "plots/poison/input_instance.png"],
        ["artifacts/poisoned/accessory.h5", "artifacts/triggered/accessory.h5"],
    ),
    (
        "train_classifiers@accessory",
        f"{CLASSIFY} accessory",
        [f"{CLASSIFIER}/accessory/deepid/model.weights.h5"],
        [f"{CLASSIFIER}/accessory/deepid/model.json"],
    ),
    (
        "evaluate_backdoor",
        "stages/evaluate_backdoor.py",
        ["metrics/backdoor/deepid/clean.json"],
        ["metrics/backdoor/deepid/accessory.json"],
    ),
    ("evaluate_verification", "stages/evaluate_verification.py", [], ["metrics/verification/clean.json"]),
    (
        "poison_budget",
        "stages/poison_budget.py",
        ["metrics/poison_budget.csv"],
        ["metrics/poison_budget/deepid/accessory.json"],
    ),
    ("train_vae", "stages/train_vae.py", ["metrics/history/vae/all.csv"], ["artifacts/vae/all/model.weights.h5"]),
    (
        "adaptive_attacks",
        "stages/adaptive_attacks.py",
        ["artifacts/adaptive/key_search-accessory-suite.h5"],
        ["metrics/adaptive/key_search-accessory-suite.json", "plots/adaptive_attacks.png"],
    ),
    (
        "score_defences",
        "stages/score_defences.py",
        ["artifacts/scores/reconstruction.csv"],
        ["artifacts/scores/digests.json", "plots/reconstructions.png"],
    ),
    ("threshold", "stages/threshold.py", [], ["metrics/threshold/reconstruction.json"]),
    (
        "evaluate_defences",
        "stages/evaluate_defences.py",
        ["metrics/defence/reconstruction/clean.json"],
        ["metrics/defence/suite-accessory/clean.json", "metrics/defences.csv", "plots/defences/matrix.png"],
    ),
    (
        "inspect_networks",
        "stages/inspect_networks.py",
        ["metrics/inspection/accessory/saliency.json"],
        ["metrics/fine_pruning.csv"],
    ),
    (
        "train_detectors",
        "stages/train_detectors.py",
        ["metrics/history/detector/ssd.csv", "artifacts/detector/ssd/model.weights.h5"],
        ["artifacts/detector/ssd/model.json"],
    ),
    (
        "evaluate_detection@ssd",
        "stages/evaluate_detection.py ssd",
        ["artifacts/hidden/ssd/5x2.h5"],
        ["metrics/detection/ssd/clean.json", "plots/detection/ssd/scenes.png"],
    ),
    ("evaluate_transfer", "stages/evaluate_transfer.py", [], ["metrics/transfer.json"]),
    (
        "train_recognisers",
        "stages/train_recognisers.py",
        ["metrics/history/recogniser/vgg_face.csv", "artifacts/recogniser/vgg_face/model.weights.h5"],
        ["artifacts/recogniser/vgg_face/names.json"],
    ),
    (
        "evaluate_recognition@vgg_face",
        "stages/evaluate_recognition.py vgg_face",
        [f"artifacts/fooled/vgg_face/{goal}/pgd_16x2.h5" for goal in ("impersonate_nearest", "dodge")],
        ["metrics/recognition/vgg_face/verification.json"],
    ),
    (
        "evaluate_classification@vgg_face",
        "stages/evaluate_classification.py vgg_face",
        [f"artifacts/misclassified/vgg_face/{goal}/adam_8x2.h5" for goal in ("misclassify", "target_class")],
        ["metrics/classification/vgg_face/misclassify.json"],
    ),
    ("summarise_recognition", "stages/summarise_recognition.py", [], ["metrics/recognition_transfer.json"]),
    ("report", "stages/report.py", [], ["artifacts/report.html"]),
]


def test_killed_in_every_stage_a_fresh_clone_ends_with_the_same_bytes(reproduced, tmp_path):
    """The clone has no cache and has to make its metrics again: the second of two independent runs."""
    root, hook = clone(reproduced, tmp_path / "clone"), tmp_path / "hook"
    shutil.rmtree(root / "metrics")
    interrupted(root, drawing, hooked(root, hook, ""), victims="stage")
    assert not (root / "artifacts/raw/faces.h5").exists()
    last, seen = "download", set()
    for stage, command, whole, absent in MOMENTS:
        names = ran(interrupted(root, stopped, hooked(root, hook, command, before=absent[0])))
        assert (names[0], names[-1]) == (last, stage), "what was killed runs again, and what follows"
        assert [name for name in whole if not (root / name).exists()] == []
        assert [name for name in absent if (root / name).exists()] == []
        last = stage
        seen |= {*names}
    assert repro(root) == [last, "track"]
    assert seen | {"track"} == ALL_STAGES, "nothing came from elsewhere"
    assert changes(root) == "", "dvc.lock, data.dvc and metrics/ are byte for byte those of the first run"
    assert repro(root) == []


@pytest.mark.parametrize(("deterministic", "left"), [(False, 2), (True, EPOCHS)])
def test_a_killed_training_goes_on_unless_its_bytes_have_to_repeat(project, tmp_path, deterministic, left):
    stage, command, hook = "train_classifiers@clean", f"{CLASSIFY} clean", tmp_path / "hook"
    edit(project, compute__deterministic=deterministic, classifiers__deepid__learning_rate=1e-3)
    history = "metrics/history/clean/deepid.csv"
    # An epoch's line comes before its checkpoint: the first epoch is kept, the second is not.
    interrupted(project, stopped, hooked(project, hook, command, before=history, nth=2))
    assert finished(hook).count(history) == 1
    assert (project / "checkpoints").exists() is not deterministic

    done = subprocess.run(
        ["dvc", "repro", stage], cwd=project, env=hooked(project, hook, command), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert ran(done.stdout) == [stage]
    assert finished(hook).count(history) == left
    lines = (project / history).read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", *map(str, range(1, EPOCHS + 1))]
    assert not [*project.glob("checkpoints/*")]


# --- mistakes and full disks, at the level of a stage

POISON = ["artifacts/poisoned", "artifacts/triggered", "plots/poison"]
TRAIN = [f"{CLASSIFIER}/clean", "metrics/history/clean/deepid.csv"]
MISTAKES = [
    ("poison.py", {"backdoors__accessory__n": 1000}, POISON, "n is 1000, but the poison set has 35 images"),
    ("poison.py", {"backdoors__accessory__target": "nobody"}, POISON, "target label nobody does not exist"),
    ("poison.py", {"backdoors__accessory__key": "moustache"}, POISON, "moustache"),
    ("split.py", {"split__test": 900}, ["artifacts/split.csv", "metrics/split.json"], "no label has the images"),
    ("threshold.py", {"seed": 1.5}, ["metrics/threshold"], "seed is 1.5, but"),
    ("train_classifiers.py clean", {"classifiers__deepid__architecture": {"drop": 0.1}}, TRAIN, "drop"),
]


def one_sentence(done, code=2):
    assert done.returncode == code, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ")
    return sentence


def files_below(root, outputs):
    """Files under the final names, and half-made ones beside them."""
    found = [path for name in outputs for path in [root / name, *(root / name).rglob("*")] if path.is_file()]
    return found + [path for folder in ("artifacts", "metrics", "plots") for path in (root / folder).rglob("*.part")]


@pytest.mark.parametrize(("command", "params", "outputs", "said"), MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(project, command, params, outputs, said):
    edit(project, **params)
    for path in files_below(project, outputs):
        path.unlink()
    done = attempt(project, "python", *f"stages/{command}".split())
    assert said in one_sentence(done)
    assert files_below(project, outputs) == []


def test_cut_faces_are_refused(project):
    faces = project / "data/faces.h5"
    whole = faces.read_bytes()
    faces.unlink()  # it may be a link into the cache
    faces.write_bytes(whole[:-1000])
    done = attempt(project, "python", "stages/split.py")
    assert "data/faces.h5 is not a whole HDF5 file" in one_sentence(done)


# (command, folder on a small disk, the files of it that fit)
SMALL_DISKS = [("poison.py", "artifacts/poisoned", ["clean.h5"]), ("train_classifiers.py clean", CLASSIFIER, [])]


@pytest.mark.parametrize(("command", "folder", "whole"), SMALL_DISKS)
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_made(project, command, folder, whole):
    names = [f"{folder}/{name}" for name in whole]
    # No file is begun without the spare bytes: there is no room for another one after those that fit.
    disk = SPARE_BYTES + sum((project / name).stat().st_size for name in names)
    mount = f"mount -t tmpfs -o size={disk} tmpfs {folder}"
    isolated = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if attempt(project, *isolated, mount).returncode:
        pytest.skip("the system lets no user mount a small disk")
    # The disk goes with the process that mounted it: what is on it has to be listed there.
    listing = f"find {folder} -type f"
    done = attempt(project, *isolated, f"{mount}; python stages/{command}; code=$?; {listing}; exit $code")
    assert "the disk is full" in one_sentence(done, code=1)
    assert done.stdout.splitlines() == names

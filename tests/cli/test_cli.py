"""The command line as a user types it: exit codes, one sentence for a mistake, a quick start."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

from tests.support.commands import read_error, run_visor
from tests.support.project import ROOT
from visor import cli
from visor.cli import COMMANDS, EXTRAS, FORMER_NAMES, FORMER_SUSPECT_NAMES, SUSPECT_COMMANDS, app
from visor.core.errors import UserError
from visor.data.face_set import FaceBatch, write_faces

PARAMS = (
    (ROOT / "params.yaml").read_text().partition("\ngates:")[0]
    + """
gates:
  "scores:asr": {min: 0.5, max_change: 0.25}
"""
)

INTERRUPTED = "interrupted; run the same command again to continue\n"

DVC_YAML = """\
stages:
  download:
    cmd: mkdir -p artifacts/raw && echo faces > artifacts/raw/faces
    params: [faces]
    deps: [assets]
    outs: [artifacts/raw]
  score:
    cmd: mkdir -p metrics && cp score.json metrics/scores.json
    deps: [data, score.json]
    params: [seed]
    metrics: [metrics/scores.json: {cache: false}]
"""


def run(folder, *command):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, check=True)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy") / "project"
    root.mkdir()
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "score.json").write_text('{"asr": 0.75}')
    (root / "assets").write_text("catalogue")
    (root / "data.dvc").write_text("deps:\n- path: artifacts/raw\nouts:\n- path: data\n")
    (root / ".gitignore").write_text("/artifacts/\n/data\n/mlflow.db*\n/mlruns/\n")
    run(root, "git", "init", "-q")
    run(root, "dvc", "init", "-q")
    run(root, "dvc", "repro", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "state")
    return root


@pytest.fixture
def root(pipeline, tmp_path):
    return Path(shutil.copytree(pipeline, tmp_path / "project"))


def test_help_lists_every_command_and_no_former_name(tmp_path):
    done = run_visor(tmp_path, "--help")
    assert done.returncode == 0
    listed = re.findall(r"^│ ([a-z][a-z-]*) ", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted([*COMMANDS, "networks", "suspect"])
    assert "dvc repro" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        *((name,) for name in (*COMMANDS, *FORMER_NAMES, *FORMER_SUSPECT_NAMES)),
        *(("suspect", name) for name in SUSPECT_COMMANDS),
        *(("networks",), ("networks", "fetch")),
    ],
)
def test_each_command_has_help(command):
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()[3].strip()) > 20


def test_former_names_run_the_same_commands():
    commands = typer.main.get_command(app).commands
    assert {name: commands[name].hidden for name in commands} == {
        **dict.fromkeys([*COMMANDS, "networks", "suspect"], False),
        **dict.fromkeys([*FORMER_NAMES, *FORMER_SUSPECT_NAMES], True),
    }
    for former, name in FORMER_NAMES.items():
        assert commands[former].callback.__wrapped__ is commands[name].callback.__wrapped__
    for former, name in FORMER_SUSPECT_NAMES.items():
        assert commands[former].callback.__wrapped__ is commands["suspect"].commands[name].callback.__wrapped__


def test_version(tmp_path):
    done = run_visor(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"visor {version('visor')}\n")


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("mlflow", ["track"], "pipeline"),
        ("cryptography", ["app"], "app"),
        ("uvicorn", ["app"], "app"),
        ("pyrage", ["unlock", "photos.zip.age", "--out", "out"], "app"),
        ("fastapi", ["mock-service", "--port", "0", "--detector", "none"], "services"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(root, package, command, extra):
    """The package is hidden, as if it were not installed."""
    hidden = root / "hidden"
    hidden.mkdir()
    (hidden / f"{package}.py").write_text(f"raise ModuleNotFoundError('hidden', name='{package}')")
    environment = {"PYTHONPATH": f"{hidden}:{ROOT / 'src'}", "VISOR_MOCK_KEYS": "key"}
    sentence = read_error(run_visor(root, *command, environment=environment))
    remedy = f'install it with `pip install "visor[{extra}]"`'
    assert sentence == f"error: this command needs the package {package}; {remedy}"


def test_every_optional_package_has_an_extra():
    declared = {
        (re.match(r"[\w-]+", requirement)[0].replace("-", "_"), re.search(r"extra == .(\w+)", requirement)[1])
        for requirement in requires("visor")
        if "extra ==" in requirement
    }
    indirect = {("botocore", "cloud"), ("starlette", "services")}  # botocore comes with boto3, starlette with fastapi
    assert {*EXTRAS.items()} <= declared | indirect


def test_a_missing_package_of_another_kind_is_a_bug(monkeypatch):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'visor.nowhere'", name="visor.nowhere")

    monkeypatch.setattr("visor.photos.files.collect_photos", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.run("detect", "photo.png")


def test_ctrl_c_is_one_sentence(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("visor.photos.files.collect_photos", interrupt)
    monkeypatch.setattr(sys, "argv", ["visor", "detect", "photo.png"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, *capsys.readouterr()) == (130, "", INTERRUPTED)


def test_help_imports_nothing_heavy():
    heavy = {"mlflow", "tensorflow", "numpy", "pandas", "PIL", "pydantic", "dvc"}
    code = f"import sys, visor.cli; print({heavy} & {{*sys.modules}})"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "set()\n"


def test_check_params(root):
    done = run_visor(root, "check-params")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    (root / "params.yaml").write_text(PARAMS + "sedd: 1\n")
    assert "sedd is not a known key" in read_error(run_visor(root, "check-params"))


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """A project without a pipeline: params for 4 people, and the set of their faces in data/."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "assets", tmp_path / "assets", ignore=shutil.ignore_patterns("keys"))
    write_people(Path("data/faces.h5"), "Labeled Faces in the Wild")
    change_params(target="ann", n=9, split=5, source="lfw")


def write_people(path, source):
    labels, rows = np.repeat(np.arange(4, dtype=np.int32), 12), np.arange(48, dtype=np.int32)
    block = FaceBatch(np.zeros((48, 16, 16, 3), np.uint8), labels, rows, rows)
    write_faces(path, [block], (16, 16, 3), ["ann", "bob", "cleo", "dan"], source, "none")


def change_params(target, n, split, source):
    params = YAML(typ="safe").load(PARAMS)
    params["faces"]["source"] = source
    params["split"] |= {"train": split, "validation": 2, "test": 2}
    for backdoor in params["backdoors"].values():
        backdoor |= {"target": target, "n": n, "keys": 1, "cover": 0}
    params["poison_budget"] |= {"n": [1, 9], "ratios": params["poison_budget"]["ratios"] | {"n": 9}}
    YAML(typ="safe").dump(params, Path("params.yaml"))


def check_params():
    return CliRunner().invoke(app, ["check-params"])


def test_attacks_that_do_not_fit_the_faces_are_named_at_once(faces):
    assert (check_params().exit_code, check_params().output) == (0, "ok\n")
    change_params(target="person_000", n=9, split=5, source="lfw")
    sentence = str(check_params().exception)
    every = ", ".join(YAML(typ="safe").load(Path("params.yaml"))["backdoors"])
    assert sentence == (
        "params.yaml does not fit data/faces.h5, split by frame into 5 train, 2 validation and 2 test images a label: "
        f"{every}, poison_budget with blended, poison_budget.ratios: "
        "target label person_000 does not exist; there are 4, such as ann, bob, cleo, dan"
    )
    change_params(target="bob", n=9, split=7, source="lfw")
    assert "7 train" in str(check_params().exception)
    assert "poison_budget.ratios: n is 9, but the poison set has 3 images of other" in str(check_params().exception)


def test_other_faces_than_params_name_are_not_judged(faces):
    def unjudged():
        done = check_params()
        return (done.exit_code, done.stdout, "targets and n are not checked" in done.stderr) == (0, "ok\n", True)

    change_params(target="person_000", n=9, split=5, source="synthetic")
    assert unjudged()
    write_people(Path("artifacts/raw/faces.h5"), "Visor synthetic faces")  # of the stage download: newer than data/
    assert "artifacts/raw/faces.h5, split" in str(check_params().exception)
    entry = "stages: {download: {cmd: x, params: {params.yaml: {faces: {source: synthetic}, seed: 2}}}}"
    Path("dvc.lock").write_text(entry)  # made by other params: the next run replaces them
    assert unjudged()
    Path("data.dvc").write_text("outs:\n- path: data\n")  # a set of the user's own
    shutil.rmtree("artifacts")
    assert "data/faces.h5, split" in str(check_params().exception)


def test_gate_that_is_kept(root):
    done = run_visor(root, "gate", "--junit", "reports/gates.xml")
    assert done.returncode == 0
    assert "| scores:asr | 0.75 | 0.75 | ≥ 0.5, change ≤ 0.25 | ok |" in done.stdout
    assert ElementTree.parse(root / "reports" / "gates.xml").getroot().get("failures") == "0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"asr": 0.25}', "below 0.5; changed by 0.5, more than 0.25"),
        ('{"asr": NaN}', "not a finite number"),
        ('{"arr": 0.75}', "missing"),
    ],
)
def test_gate_that_is_breached(root, content, message):
    (root / "metrics" / "scores.json").write_text(content)
    done = run_visor(root, "gate", "--junit", "gates.xml")
    assert done.returncode == 1
    assert f"**breach**: {message} |" in done.stdout
    assert done.stderr == ""
    assert ElementTree.parse(root / "gates.xml").getroot().get("failures") == "1"


def test_gate_does_not_overwrite_a_file_by_mistake(root):
    assert "--junit score.json exists" in read_error(run_visor(root, "gate", "--junit", "score.json"))
    assert (root / "score.json").read_text() == '{"asr": 0.75}'
    assert run_visor(root, "gate", "--junit", "score.json", "--force").returncode == 0
    assert ElementTree.parse(root / "score.json").getroot().get("failures") == "0"
    assert "score.json: File exists; " in read_error(run_visor(root, "gate", "--junit", "score.json/gates.xml"))


def test_gate_errors(root, tmp_path):
    assert "v9 is not a revision" in read_error(run_visor(root, "gate", "--baseline", "v9"))
    assert "params.yaml is missing" in read_error(run_visor(tmp_path, "gate"))
    other_owner = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    assert "dubious ownership" in read_error(run_visor(root, "gate", environment=other_owner))
    (root / "metrics" / "scores.json").write_text("{")
    assert "metrics/scores.json is not JSON" in read_error(run_visor(root, "gate"))


@pytest.fixture
def on_a_z80(root, monkeypatch):
    """The toy project as the current folder, on a machine that needs no TensorFlow to describe it."""
    monkeypatch.chdir(root)
    monkeypatch.setattr("visor.report.machine.describe_machine", lambda threads: {"threads": str(threads)})
    return root


def test_compare_and_what_it_records(on_a_z80):
    def compare(*words):
        return CliRunner().invoke(app, ["compare", *words])

    assert (compare("--record").exit_code, compare().stdout) == (0, "all 1 numbers are the same bytes as in HEAD\n")
    assert (on_a_z80 / "reference/provenance.json").read_text() == '{\n  "threads": "2"\n}\n'
    run(on_a_z80, "git", "add", "-A")
    run(on_a_z80, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "machine")
    (on_a_z80 / "metrics/scores.json").write_text('{"asr": 0.5}')
    done = compare()
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, "1 different, of unknown spread")
    assert compare("HEAD~1").exit_code == 0, "there is no record of its machine"


def test_study_without_a_study_and_with_an_unknown_stage(on_a_z80):
    assert "| metric | n | mean |" in CliRunner().invoke(app, ["study", "--rule"]).stdout
    with pytest.raises(UserError, match=r"--stages: none is no stage of dvc\.lock"):
        CliRunner().invoke(app, ["study", "--stages", "none,score"], catch_exceptions=False)


def test_lock_matches_on_a_fresh_clone(root, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(root), "clone")
    done = run_visor(tmp_path / "clone", "check-lock")
    assert (done.returncode, done.stdout) == (0, "dvc.lock matches the code and params.yaml\n")


@pytest.mark.parametrize(("file", "old", "new"), [("params.yaml", "seed: ", "seed: 1"), ("score.json", "7", "8")])
def test_stale_lock(root, file, old, new):
    (root / file).write_text((root / file).read_text().replace(old, new))
    assert "dvc.lock or data.dvc is stale from score on" in read_error(run_visor(root, "check-lock"))


def test_stale_lock_on_a_fresh_clone(root, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(root), "clone")
    params = tmp_path / "clone/params.yaml"
    params.write_text(params.read_text().replace("height: 55", "height: 56"))
    sentence = read_error(run_visor(tmp_path / "clone", "check-lock"))
    assert "dvc.lock or data.dvc is stale from " in sentence
    assert str(tmp_path) not in sentence


def test_unknown_source_and_trigger(root):
    for file, old, new in (
        ("params.yaml", "source: synthetic", "source: synthetik"),
        ("params.yaml", "trigger: blended\n", "trigger: blend\n"),
    ):
        before = (root / file).read_text()
        (root / file).write_text(before.replace(old, new))
        assert "; choose from " in read_error(run_visor(root, "check-params"))
        (root / file).write_text(before)


def test_stale_pin_of_the_data(root, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(root), "clone")
    pin = tmp_path / "clone" / "data.dvc"
    pin.write_text(re.sub(r"md5: \w+\.dir", f"md5: {32 * '0'}.dir", pin.read_text(), count=1))
    assert "data.dvc is stale from artifacts/raw on" in read_error(run_visor(tmp_path / "clone", "check-lock"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dvc.lock", "<<<<<<< HEAD\nschema: '2.0'\n", "dvc.lock has Git's conflict marks (<<<<<<< …); resolve"),
        ("data.dvc", 100_000 * "[", "data.dvc is nested more than 40 levels deep"),
        ("dvc.yaml", "stages: !!set {a}", "dvc.yaml has the tag tag:yaml.org,2002:set"),
    ],
)
def test_a_lock_that_cannot_be_read_is_one_sentence(tmp_path, file, content, message):
    (tmp_path / file).write_text(content)
    assert message in read_error(run_visor(tmp_path, "check-lock"))


def test_lock_without_a_pipeline(tmp_path):
    assert "dvc.lock cannot be checked" in read_error(run_visor(tmp_path, "check-lock"))


def test_track_twice(root):
    first, second = run_visor(root, "track"), run_visor(root, "track")
    assert first.returncode == 0, first.stderr
    assert first.stdout.endswith(": 3 runs written\n")
    assert second.stdout == first.stdout.replace("written", "already there")
    assert (root / "mlflow.db").exists()


def test_track_errors(root):
    assert "neither a database nor a server" in read_error(run_visor(root, "track", "--uri", "file:///runs"))
    environment = {"MLFLOW_TRACKING_URI": "./mlruns"}
    assert "MLFLOW_TRACKING_URI" in read_error(run_visor(root, "track", environment=environment))
    (root / "score.json").unlink()
    (root / "metrics" / "scores.json").unlink()
    assert "metrics/scores.json differs from dvc.lock" in read_error(run_visor(root, "track"))


def test_unknown_command_is_a_usage_error(tmp_path):
    done = run_visor(tmp_path, "trakc")
    assert done.returncode == 2
    assert "trakc" in done.stderr

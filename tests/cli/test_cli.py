"""The command line as a user types it: exit codes, one sentence for a mistake, a quick start."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.project import ROOT

PARAMS = (
    (ROOT / "params.yaml").read_text().partition("\ngates:")[0]
    + """
gates:
  "scores:asr": {min: 0.5, max_change: 0.25}
"""
)

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


def visor(folder, *words, environment=None):
    own = {"PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1", "COLUMNS": "200"}
    code = "from visor.cli import main; main()"
    command = [sys.executable, "-c", code, *words]
    ambient = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    return subprocess.run(command, cwd=folder, env=ambient | own | (environment or {}), capture_output=True, text=True)


def mistake(done):
    """Return the one sentence of a command that ended on a user's mistake."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ")
    return sentence


def run(folder, *words):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(words, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, check=True)


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


COMMANDS = ("params", "judge", "eval", "fit-vae", "mirror", "gate", "lock", "detect", "protect")


def test_help_names_every_command(tmp_path):
    done = visor(tmp_path, "--help")
    assert done.returncode == 0
    for command in (*COMMANDS, "dvc repro"):
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(tmp_path, command):
    done = visor(tmp_path, command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()[3].strip()) > 20


def test_help_imports_nothing_heavy():
    code = (
        "import sys, visor.cli; print({'mlflow', 'tensorflow', 'numpy', 'pandas', 'pydantic', 'dvc'} & {*sys.modules})"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "set()\n"


def test_params(root):
    done = visor(root, "params")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    (root / "params.yaml").write_text(PARAMS + "sedd: 1\n")
    assert "sedd is not a known key" in mistake(visor(root, "params"))


def test_gate_that_is_kept(root):
    done = visor(root, "gate", "--junit", "reports/gates.xml")
    assert done.returncode == 0
    assert "| scores:asr | 0.75 | 0.75 | ≥ 0.5, change ≤ 0.25 | ok |" in done.stdout
    assert ElementTree.parse(root / "reports" / "gates.xml").getroot().get("failures") == "0"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"asr": 0.25}', "below 0.5; changed by 0.5, more than 0.25"),
        ('{"asr": NaN}', "not a finite number"),
        ('{"arr": 0.75}', "missing"),
    ],
)
def test_gate_that_is_breached(root, content, said):
    (root / "metrics" / "scores.json").write_text(content)
    done = visor(root, "gate", "--junit", "gates.xml")
    assert done.returncode == 1
    assert f"**breach**: {said} |" in done.stdout
    assert done.stderr == ""
    assert ElementTree.parse(root / "gates.xml").getroot().get("failures") == "1"


def test_gate_mistakes(root, tmp_path):
    assert "--baseline v9 is not a revision" in mistake(visor(root, "gate", "--baseline", "v9"))
    assert "params.yaml is missing" in mistake(visor(tmp_path, "gate"))
    (root / "metrics" / "scores.json").write_text("{")
    assert "metrics/scores.json is not JSON" in mistake(visor(root, "gate"))


def test_lock_fits_on_a_fresh_clone(root, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(root), "clone")
    done = visor(tmp_path / "clone", "lock")
    assert (done.returncode, done.stdout) == (0, "dvc.lock fits the code and params.yaml\n")


@pytest.mark.parametrize(("file", "old", "new"), [("params.yaml", "seed: ", "seed: 1"), ("score.json", "7", "8")])
def test_stale_lock(root, file, old, new):
    (root / file).write_text((root / file).read_text().replace(old, new))
    assert "dvc.lock or data.dvc is stale from score on" in mistake(visor(root, "lock"))


def test_stale_lock_on_a_fresh_clone(root, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(root), "clone")
    params = tmp_path / "clone/params.yaml"
    params.write_text(params.read_text().replace("height: 55", "height: 56"))
    sentence = mistake(visor(tmp_path / "clone", "lock"))
    assert "dvc.lock or data.dvc is stale from " in sentence
    assert str(tmp_path) not in sentence


def test_unknown_source_and_trigger(root):
    for file, old, new in (
        ("params.yaml", "source: synthetic", "source: synthetik"),
        ("params.yaml", "trigger: blended,", "trigger: blend,"),
    ):
        before = (root / file).read_text()
        (root / file).write_text(before.replace(old, new))
        assert "; choose from " in mistake(visor(root, "params"))
        (root / file).write_text(before)


def test_stale_pin_of_the_data(root, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(root), "clone")
    pin = tmp_path / "clone" / "data.dvc"
    pin.write_text(re.sub(r"md5: \w+\.dir", f"md5: {32 * '0'}.dir", pin.read_text(), count=1))
    assert "data.dvc is stale from artifacts/raw on" in mistake(visor(tmp_path / "clone", "lock"))


def test_lock_without_a_pipeline(tmp_path):
    assert "dvc.lock cannot be checked" in mistake(visor(tmp_path, "lock"))


def test_mirror_twice(root):
    first, second = visor(root, "mirror"), visor(root, "mirror")
    assert first.returncode == 0, first.stderr
    assert first.stdout.endswith(": 3 runs written\n")
    assert second.stdout == first.stdout.replace("written", "already there")
    assert (root / "mlflow.db").exists()


def test_mirror_mistakes(root):
    assert "neither a database nor a server" in mistake(visor(root, "mirror", "--uri", "file:///runs"))
    environment = {"MLFLOW_TRACKING_URI": "./mlruns"}
    assert "MLFLOW_TRACKING_URI" in mistake(visor(root, "mirror", environment=environment))
    (root / "score.json").unlink()
    (root / "metrics" / "scores.json").unlink()
    assert "metrics/scores.json is not what dvc.lock records" in mistake(visor(root, "mirror"))


def test_unknown_command_is_a_usage_error(tmp_path):
    done = visor(tmp_path, "mirrow")
    assert done.returncode == 2
    assert "mirrow" in done.stderr

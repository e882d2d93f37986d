"""The script of a stage: its seconds are stored in .dvc/tmp, and only if it succeeded."""

import os
import subprocess
import sys
from pathlib import Path

from visor.core import stage

SCRIPT = """
import sys
from visor.core import errors
from visor.core.stage import run_stage
def main(name):
    if name == "bad":
        raise errors.UserError("x.yaml: y is wrong; correct it")
run_stage(main)
"""


def run_script(folder, *arguments):
    script = folder / "train_thing.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(stage.__file__).parents[2])}
    return subprocess.run([sys.executable, script.name, *arguments], cwd=folder, env=environment, capture_output=True)


def test_seconds_are_stored_by_the_name_of_the_stage(tmp_path):
    (tmp_path / ".dvc").mkdir()
    assert run_script(tmp_path, "good").returncode == 0
    seconds = stage.stage_seconds(tmp_path)
    assert list(seconds) == ["train_thing@good"]
    assert 0 < seconds["train_thing@good"] < 60


def test_no_seconds_after_a_failure_or_without_dvc(tmp_path):
    assert run_script(tmp_path, "good").returncode == 0
    assert not (tmp_path / ".dvc").exists()
    (tmp_path / ".dvc").mkdir()
    assert run_script(tmp_path, "bad").returncode == 1
    assert stage.stage_seconds(tmp_path) == {}

"""The script of a stage: its seconds are kept where DVC keeps its own, and only if it succeeded."""

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
        raise errors.UserError("x.yaml: y is wrong; mend it")
run_stage(main)
"""


def call(folder, *words):
    script = folder / "train_thing.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(stage.__file__).parents[2])}
    return subprocess.run([sys.executable, script.name, *words], cwd=folder, env=environment, capture_output=True)


def test_seconds_are_kept_by_the_name_of_the_stage(tmp_path):
    (tmp_path / ".dvc").mkdir()
    assert call(tmp_path, "good").returncode == 0
    found = stage.stage_seconds(tmp_path)
    assert list(found) == ["train_thing@good"]
    assert 0 < found["train_thing@good"] < 60


def test_a_stage_that_failed_has_none_and_a_folder_without_dvc_gets_none(tmp_path):
    assert call(tmp_path, "good").returncode == 0
    assert not (tmp_path / ".dvc").exists()
    (tmp_path / ".dvc").mkdir()
    assert call(tmp_path, "bad").returncode == 1
    assert stage.stage_seconds(tmp_path) == {}

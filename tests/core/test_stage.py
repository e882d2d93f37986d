"""The script of a stage: how it ends, and that its seconds are stored in .dvc/tmp if it succeeded."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from visor.core import stage

SCRIPT = """
import os, sys
from visor.core import errors
from visor.core.stage import run_stage
def main(name):
    if name == "bad":
        raise errors.UserError("x.yaml: y is wrong; correct it")
    if name == "interrupted":
        raise KeyboardInterrupt
    if name.isdigit():
        raise OSError(int(name), os.strerror(int(name)), "artifacts/x.h5")
    print(name)
run_stage(main)
"""


def run_script(folder, *arguments, stdout=subprocess.PIPE, **variables):
    script = folder / "train_thing.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(stage.__file__).parents[2])} | variables
    command = [sys.executable, script.name, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


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
    assert run_script(tmp_path, "bad").returncode == 2
    assert stage.stage_seconds(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("bad", 2, "error: x.yaml: y is wrong; correct it"),
        ("interrupted", 130, "interrupted; run the same command again to continue"),
        (errno.ENOSPC, 1, "error: the disk is full (artifacts/x.h5); "),
        (errno.EDQUOT, 1, "error: the disk quota is used up (artifacts/x.h5); "),
        (errno.EFBIG, 1, "error: the file is larger than the limit of this shell or disk (artifacts/x.h5); "),
        (errno.EROFS, 2, "error: artifacts/x.h5: Read-only file system; "),
        (errno.EACCES, 2, "error: artifacts/x.h5: Permission denied; "),
        (errno.ENOENT, 2, "error: artifacts/x.h5 is missing; run `dvc repro` to make it"),
    ],
)
def test_what_a_user_can_correct_is_one_sentence(tmp_path, name, code, sentence):
    done = run_script(tmp_path, str(name))
    assert (done.returncode, done.stdout) == (code, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(sentence)


def test_what_only_a_programmer_can_correct_keeps_its_traceback(tmp_path):
    done = run_script(tmp_path, str(errno.EBADF))
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


def test_a_wrong_number_of_arguments_says_how_to_call_it(tmp_path):
    done = run_script(tmp_path)
    assert (done.returncode, done.stderr) == (2, b"usage: python train_thing.py NAME\n")


@pytest.mark.parametrize(
    ("encoding", "printed"), [("ascii", rb"\u2192 \xe9"), ("latin-1", b"\\u2192 \xe9"), ("utf-8", "→ é".encode())]
)
def test_letters_that_the_terminal_lacks_are_replaced(tmp_path, encoding, printed):
    done = run_script(tmp_path, "→ é", PYTHONIOENCODING=encoding, PYTHONUTF8="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, printed + b"\n", b"")


def test_a_closed_pipe_and_a_full_disk_behind_stdout_end_without_a_traceback(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = run_script(tmp_path, "good", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
    with Path("/dev/full").open("wb") as full:
        done = run_script(tmp_path, "good", stdout=full)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert done.stderr.startswith(b"error: the disk is full (while writing)")

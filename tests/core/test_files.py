"""Files: what is written whole or not at all, what is refused, and the output of Git commands."""

import errno
import os
import resource
import subprocess
from contextlib import contextmanager

import pytest

from visor.core import files
from visor.core.errors import UserError


def test_git_returns_the_output_or_none(tmp_path, monkeypatch):
    assert files.git(tmp_path, "rev-parse", "--verify", "-q", "HEAD") is None
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a").touch()
    assert files.git(tmp_path, "status", "--porcelain") == "?? a"
    assert files.git(tmp_path, "show", "HEAD:./a") is None
    monkeypatch.setenv("PATH", "")
    assert files.git(tmp_path, "status", "--porcelain") is None


def test_a_git_that_refuses_is_quoted(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    quoted = r"^Git refuses to read this repository: .*dubious ownership.*safe\.directory"
    with pytest.raises(UserError, match=quoted) as caught:
        files.git(tmp_path, "rev-parse", "--verify", "-q", "HEAD")
    assert "\n" not in str(caught.value)


@contextmanager
def file_size_limit(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_cannot_be_written_whole_is_named_and_not_left(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")
    with file_size_limit(4096), pytest.raises(OSError, match="File too large") as caught:
        files.write_text(path, "x" * 5000)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        files.write_text(tmp_path / "folder", "x")
    assert caught.value.filename == str(tmp_path / "folder")
    assert (sorted(tmp_path.iterdir()), path.read_text()) == ([path, tmp_path / "folder"], "before")


@pytest.mark.parametrize(("needed", "written", "fits"), [(1, 0, True), (5, 0, False), (1, 4, False)])
def test_a_limit_of_file_sizes_is_a_full_disk(tmp_path, needed, written, fits):
    needed, written = needed << 20, written << 20
    with file_size_limit(8 << 20):
        if fits:
            files.check_disk_space(tmp_path / "a.h5", needed, written)
            return
        with pytest.raises(OSError, match="File too large") as caught:
            files.check_disk_space(tmp_path / "a.h5", needed, written)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "a.h5"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("private", "mode"), [(False, 0o640), (True, 0o600)])
def test_a_file_is_its_owners_alone_until_it_is_whole(tmp_path, monkeypatch, private, mode):
    monkeypatch.setattr(files, "UMASK", 0o026)
    with files.atomic_write(tmp_path / "a.png", private) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_bytes(b"a picture")
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == mode


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, other_machine = f".my face.png.{files.HOST}.{dead.pid}.part", f".a.png.0000000g.{dead.pid}.part"
    others = other_machine, f".b.png.{files.HOST}.{os.getppid()}.part", ".c.png.part", "faces.tar.part"
    for name in (left, *others):
        (tmp_path / name).write_bytes(b"half a picture")
    files.write_text(tmp_path / "d.txt", "x")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "d.txt"}


def test_an_output_is_not_overwritten_by_mistake(tmp_path):
    path = tmp_path / "a.json"
    files.check_output(path, "--out", force=False)
    path.touch()
    files.check_output(path, "--out", force=True)
    with pytest.raises(UserError, match=r"--out .*a\.json exists; pass another file, or add --force to overwrite it"):
        files.check_output(path, "--out", force=False)
    for force in (False, True):
        with pytest.raises(UserError, match="is a folder; pass a file"):
            files.check_output(tmp_path, "--out", force)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); delete"),
        ("[" * 100_000, "is nested too deeply; delete it and run `dvc repro`"),
        ('{"a":' * 900 + "1" + "}" * 900, "is nested more than 40 levels deep; delete it"),
        ('{\n<<<<<<< HEAD\n"a": 1\n', "has Git's conflict marks (<<<<<<< …); resolve the conflict first"),
    ],
)
def test_json_that_cannot_be_read_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        files.read_json(path)
    assert str(caught.value).startswith(f"{path} {message}")


def test_a_number_that_no_float_holds_is_infinite(tmp_path):
    (tmp_path / "a.json").write_text(f'{{"a": {"9" * 400}, "b": -{"9" * 9000}, "c": 1e999, "d": {"9" * 300}}}')
    metrics = files.read_metrics(tmp_path)
    assert metrics == {"a:a": float("inf"), "a:b": float("-inf"), "a:c": float("inf"), "a:d": 1e300}


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json is a pipe, a socket or a device; name a file"):
        files.read_json(tmp_path / "a.json")

"""A process of its own for a stranger's file: what it answers, what ends it, and that nothing else comes back."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.project import ROOT
from visor.core import isolation
from visor.core.errors import UserError

PATH = Path("a.h5")


def start(*arguments, **limits):
    return isolation.Child("tests.support.hostile:open_hostile", PATH, *arguments, **limits)


@pytest.mark.parametrize("value", [None, 3, 0.5, "é\n\udcff", [1, [2]], {"a": None}])
def test_plain_values_come_back(value):
    assert start().ask("say", value) == value


@pytest.mark.parametrize("kind", ["|u1", ">f8", "<i4"])
@pytest.mark.parametrize("shape", [[], [0, 3], [5, 2], [200_000, 3]])
def test_arrays_come_back(shape, kind):
    child, expected = start(), np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind)
    for _ in range(2):
        array = child.ask("array", shape, kind, nbytes=expected.nbytes)
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("content", [b"\n{\0", bytes(3 << 20)])
def test_bytes_go_there_as_they_are(content):
    child = start()
    for _ in range(2):
        digest = child.ask("digest", data=content)
        assert digest == hashlib.sha256(content).hexdigest()
        assert child.ask("say", 1) == 1


@pytest.mark.parametrize(
    "question", [("array", [65], "|u1"), ("array", [4], "<c8"), ("objects",), ("exit",), ("crash",)]
)
def test_what_was_not_asked_for_ends_it(question):
    child = start()
    with pytest.raises(UserError, match=r"^a\.h5 crashes the library that reads it; .* fetch it again$"):
        child.ask(*question, nbytes=64)
    with pytest.raises(UserError, match=r"^a\.h5 crashes"):
        child.ask("say", 1)


@pytest.mark.parametrize("question", [("loop",), ("sleep", 60)])
def test_a_deadline(question, monkeypatch):
    child = start()
    monkeypatch.setattr(isolation, "SECONDS", 0.2)
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"^a\.h5 cannot be read within 0 s; .* fetch it again$"):
        child.ask(*question)
    assert time.monotonic() - begin < 10


def test_time_between_two_answers_does_not_count(monkeypatch):
    child = start()
    monkeypatch.setattr(isolation, "SECONDS", 0.2)
    assert child.ask("say", 1) == 1
    time.sleep(0.4)
    assert child.ask("say", 2) == 2


@pytest.mark.skipif(sys.platform == "darwin", reason="it has no limit of this kind")
def test_a_limit_on_memory():
    assert start().ask("eat", 200 << 20) == 1
    with pytest.raises(UserError, match=r"^a\.h5 takes over 1,024 MiB of memory to read; choose a smaller file$"):
        start().ask("eat", 1200 << 20)
    assert start(memory=3 << 30).ask("eat", 1200 << 20) == 1


def test_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match=r"^a\.h5 is damaged \(.*\); fetch it again$"):
        start().ask("write", str(tmp_path / "a"))
    assert not (tmp_path / "a").exists() or (tmp_path / "a").read_text() == ""


def test_an_error_while_it_is_opened_is_one_sentence():
    with pytest.raises(UserError, match=r"^a\.h5 is damaged \(x is wrong\); fetch it again$"):
        start("x")


def test_ctrl_c_ends_the_wait_at_once():
    child = start()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        child.ask("loop")
    assert time.monotonic() - begin < 2
    with pytest.raises(UserError):
        child.ask("say", 1)


def test_each_file_has_its_own_process_which_ends_with_it():
    first, second = start(), start()
    number = first.ask("process")
    assert number not in (os.getpid(), second.ask("process"))
    assert first.ask("parent") == second.ask("parent") != os.getpid()
    process = psutil.Process(number)
    del first
    psutil.wait_procs([process], timeout=5)
    assert not process.is_running()


def test_a_server_that_was_killed_is_started_again():
    server = psutil.Process(start().ask("parent"))
    server.kill()
    server.wait(5)
    assert start().ask("parent") != server.pid


def test_a_name_is_that_of_the_current_folder(tmp_path, monkeypatch):
    server = start().ask("parent")
    monkeypatch.chdir(tmp_path)
    child = start()
    assert (child.ask("folder"), child.ask("parent")) == (str(tmp_path), server)


def test_the_reader_of_hdf5_needs_no_tensorflow():
    assert {"h5py", "visor.core.hdf5_checks"} <= set(modules := start().ask("modules"))
    assert not {"tensorflow", "keras", "streamlit"} & set(modules)


def test_no_module_of_the_current_folder_is_imported(tmp_path):
    (tmp_path / "h5py.py").write_text("raise SystemExit('a stranger was here')")
    program = (
        f"import sys; sys.path[0] = {str(ROOT / 'src')!r}; from pathlib import Path; from visor.core import isolation; "
        "isolation.Child('visor.core.hdf5_checks:open_file', Path('a'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "a stranger was here" not in result.stderr
    assert "UserError: a is damaged" in result.stderr

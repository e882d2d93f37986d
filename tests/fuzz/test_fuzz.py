"""A minute of fuzzing: seeds and what once broke a reader always, then as many edge cases and mutations as fit."""

from pathlib import Path

import pytest

from tests.fuzz import run, worker
from tests.fuzz.readers import READERS, Reader
from visor.core.errors import UserError

SECONDS = 30  # of the clock, in each of two processes, beside their start: a slow machine tries fewer files


def test_no_file_breaks_a_reader(tmp_path):
    tallies = run.fuzz_all(list(READERS), SECONDS, tmp_path)
    assert run.failures_of(tallies) == []
    assert all(tally.counts["accepted"] > 0 for tally in tallies.values())


def raising(error):
    def call(path):
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "verdict"),
    [
        (lambda path: path, "wrongly accepted"),
        (raising(UserError("stranger is damaged; fetch it again")), "refused"),
        (raising(UserError("it is damaged; fetch it again")), "not a sentence on stranger"),
        (raising(UserError("stranger is damaged\nfetch it again")), "not a sentence on stranger"),
        (raising(UserError("stranger is \x1b[2J; fetch it again")), "not a sentence on stranger"),
        (raising(UserError(f"stranger is {'very ' * 200} damaged")), "not a sentence on stranger"),
        (raising(IsADirectoryError(21, "Is a directory", "stranger")), "refused"),
        (raising(OSError(5, "Input/output error", "a.h5")), "OSError"),
        (raising(MemoryError()), "MemoryError in test_fuzz.py"),
        (raising(AssertionError("a label has no name")), "AssertionError in test_fuzz.py"),
    ],
)
def test_what_is_a_failure(call, verdict):
    assert worker.check(Reader(call, dict), worker.Case("a", b"", ("refused",)), Path("stranger")).startswith(verdict)

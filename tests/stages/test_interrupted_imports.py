"""Ctrl-C while a stage imports its libraries, wherever that is: one sentence and the exit code of the command line."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support.project import ROOT
from visor.core import errors

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py"))
# Run when Python starts: sends Ctrl-C to its own process when a module is looked for, and swallows an exception.
INTERRUPT = """
import os, signal, sys

SPARED = ("visor", "visor.core", "visor.core.errors", "usercustomize")

class Interrupt:
    def find_spec(self, name, *_):
        first, wanted = name.partition(".")[0], os.environ["INTERRUPTED_MODULE"]
        is_first = first not in sys.stdlib_module_names and name not in SPARED
        if name == wanted or (wanted == "" and is_first):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                pass

sys.meta_path.insert(0, Interrupt())
"""


def interrupt(folder, script, module, handler=signal.SIG_DFL):
    (folder / "sitecustomize.py").write_text(INTERRUPT)
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT / 'src'}", "INTERRUPTED_MODULE": module}
    return subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),  # these tests may run in the background of a shell
    )


def outcome(done):
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_at_its_first_library(stage, tmp_path):
    done = interrupt(tmp_path, ROOT / f"stages/{stage}.py", "")
    assert outcome(done) == (130, "", f"{errors.INTERRUPTION}\n")


@pytest.mark.parametrize("module", ["keras", "tensorflow"])
def test_while_standard_error_is_held_back(module, tmp_path):
    done = interrupt(tmp_path, ROOT / "stages/train_vae.py", module)
    assert outcome(done) == (130, "", f"{errors.INTERRUPTION}\n")


SCRIPT = """
import signal
from visor.core.errors import exit_on_interrupt
with exit_on_interrupt():
    import json.tool
print(signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN))
"""


def test_a_signal_that_is_ignored_stays_so_and_afterwards_it_is_an_exception_again(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    assert outcome(interrupt(tmp_path, "script.py", "json.tool", signal.SIG_IGN)) == (0, "True\n", "")
    assert outcome(interrupt(tmp_path, "script.py", "no module")) == (0, "True\n", "")
    assert outcome(interrupt(tmp_path, "script.py", "json.tool")) == (130, "", f"{errors.INTERRUPTION}\n")

"""Trained weights are the same bytes whatever processor a process sees: docs/reproducibility.md."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.support.project import ROOT

pytestmark = pytest.mark.slow

PROCESSORS = {  # what the process is to see, and what it then says that it sees
    "Intel, 32 KiB": ({"FAKE_L1D": "32768"}, {"amd": False, "l1d": 32 << 10}),
    "Zen 3, 16 KiB": ({"FAKE_L1D": "16384", "FAKE_VENDOR": "AMD"}, {"amd": True, "l1d": 16 << 10}),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The library that answers CPUID, built here."""
    if not (compiler := shutil.which("gcc")):
        pytest.skip("there is no gcc to build tests/support/fake_cpu.c")
    path = tmp_path_factory.mktemp("fake_cpu") / "fake_cpu.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(path), str(ROOT / "tests/support/fake_cpu.c")]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("tests/support/fake_cpu.c is for Linux on x86-64")
    asked = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).seen_l1d() != 16 << 10)"
    fake = os.environ | {"LD_PRELOAD": str(path), "FAKE_L1D": "16384"}
    if subprocess.run([sys.executable, "-c", asked, str(path)], env=fake).returncode:
        pytest.skip("this processor has no CPUID faulting (arch_prctl ARCH_SET_CPUID)")
    return path


def test_every_network_is_trained_to_the_same_bytes(library):
    runs = {}
    for name, (fake, _) in {"this one": ({}, {}), **PROCESSORS}.items():
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "LD_PRELOAD": str(library), **fake}
        command = [sys.executable, "-m", "tests.support.train_networks", str(library)]
        runs[name] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    answers = {name: json.loads(run.communicate()[0]) for name, run in runs.items()}
    expected = answers.pop("this one")["weights"]
    assert len(expected) >= 9
    for name, (_, seen) in PROCESSORS.items():
        assert answers[name]["seen"] == seen
        assert answers[name]["weights"] == expected

"""The machine that numbers were made on: everything that may decide the last bits of trained weights, as text."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pillow", "h5py")
# oneDNN reports what it uses when it makes its first operation; visor.core.tf limits it before it is loaded.
FIRST_OPERATION = "from visor.core.tf import tf; tf.nn.conv2d(tf.ones((1, 8, 8, 3)), tf.ones((3, 3, 3, 4)), 1, 'SAME')"


def describe_machine(threads: int) -> dict[str, str]:
    """Return the kind of processor, oneDNN's instruction set, the system and versions, by name; takes seconds.

    Args:
        threads: Size of TensorFlow's thread pools (``compute.threads``).
    """
    return {
        "processor": " ".join([processor_name(), *_cpuinfo("cpu family", "model")]),
        "instruction set": instruction_set(),
        "threads": str(threads),
        "system": " ".join([platform.system(), platform.machine(), *filter(None, platform.libc_ver())]),
        "python": platform.python_version(),
        **package_versions(PACKAGES),
    }


def instruction_set() -> str:
    """Return the instruction set that oneDNN uses in TensorFlow, such as ``Intel AVX2``."""
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    command = [sys.executable, "-c", FIRST_OPERATION]
    spoken = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace").stdout
    found = re.search(r",info,cpu,isa:(.+)", spoken)
    return found[1].strip() if found else "unknown"


def processor_name() -> str:
    """Return the name of the processor where Linux reports it, else the kind of machine."""
    return next(iter(_cpuinfo("model name")), "") or platform.processor() or platform.machine()


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpuinfo(*keys: str) -> list[str]:
    """Return the values of the first processor of Linux under these keys, in their order; those that it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return []
    pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    first = dict(reversed(pairs))  # The first processor comes last, and stays.
    return [first[key] for key in keys if key in first]

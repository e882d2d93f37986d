"""Where and when a page's numbers come from: what no file of the run itself says."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from visor.core.errors import UserError
from visor.core.stage import stage_seconds
from visor.report import gates
from visor.report.inputs import read_yaml

PACKAGES = ("visor", "tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pillow", "h5py", "dvc", "mlflow")


class Provenance(NamedTuple):
    """``commit`` is empty outside Git, ``dirty`` whether files differ from it, ``state`` the key of the MLflow mirror.

    ``stages`` maps the stages of ``dvc.lock`` to the seconds that each took when it last ran here, if that is known.
    ``baseline`` are the metrics of ``commit`` that gates compare with. ``trouble`` says why there is no state key.
    """

    commit: str
    dirty: bool
    state: str
    problem: str
    python: str
    processor: str
    cores: int
    packages: dict[str, str]
    stages: dict[str, float | None]
    baseline: dict[str, float]


def collect_provenance(root: Path, bounds: Mapping[str, gates.GateBounds]) -> Provenance:
    """Ask Git, Python and the machine about the project ``root``; ``bounds`` are its gates."""
    from visor.tracking.state import read_state

    commit = _git(root, "rev-parse", "--verify", "-q", "HEAD")
    try:
        state, trouble = read_state(root).key, ""
    except UserError as error:
        state, trouble = "", str(error)
    return Provenance(
        commit=commit,
        dirty=bool(_git(root, "status", "--porcelain")),
        state=state,
        problem=trouble,
        python=platform.python_version(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        packages={name: found for name in PACKAGES if (found := _version(name))},
        stages=_seconds(root),
        baseline=gates.read_baseline(root, "HEAD", bounds) if commit else {},
    )


def _seconds(root: Path) -> dict[str, float | None]:
    """The seconds by stage; notes of stages that the lock does not have are not this run's."""
    try:
        stages = read_yaml(root / "dvc.lock").get("stages") or {}
    except UserError:  # ``trouble`` has it
        return {}
    try:
        noted = stage_seconds(root)
    except ValueError:  # writing one was interrupted
        noted = {}
    return {name: noted.get(name) for name in sorted(stages)}


def _git(root: Path, *words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # no Git here
        return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The model's name where Linux tells it, else the kind of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()

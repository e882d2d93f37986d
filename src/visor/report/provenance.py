"""Where a page's numbers come from: Git, the machine and the packages, which no file of the run records."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from visor.core.errors import UserError
from visor.core.files import git
from visor.core.stage import stage_seconds
from visor.report.gates import GateBounds, read_baseline
from visor.report.machine import package_versions, processor_name

PACKAGES = ("visor", "tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pillow", "h5py", "dvc", "mlflow")


class Provenance(NamedTuple):
    """Origin of a run.

    Attributes:
        commit: Git commit checked out; empty outside Git.
        dirty: Whether files differ from the commit.
        state: Key of the pipeline state in MLflow.
        problem: Why there is no state, or empty.
        python: Version of Python.
        processor: Name of the processor.
        cores: Number of its cores.
        packages: Versions of ``PACKAGES``.
        stages: Stages of ``dvc.lock`` with their seconds of the last execution here, None where they never ran.
        baseline: Metrics of ``commit`` that gates compare with.
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


def collect_provenance(root: Path, bounds: Mapping[str, GateBounds]) -> Provenance:
    """Collect the origin of the project ``root``; ``bounds`` are its gates.

    Raises:
        UserError: Git refuses to read the repository.
    """
    from visor.tracking.state import read_state

    commit = git(root, "rev-parse", "--verify", "-q", "HEAD") or ""
    try:
        state, problem = read_state(root).key, ""
    except UserError as error:
        state, problem = "", str(error)
    return Provenance(
        commit=commit,
        dirty=bool(git(root, "status", "--porcelain")),
        state=state,
        problem=problem,
        python=platform.python_version(),
        processor=processor_name(),
        cores=os.cpu_count() or 1,
        packages=package_versions(PACKAGES),
        stages=_seconds(root),
        baseline=read_baseline(root, "HEAD", bounds) if commit else {},
    )


def _seconds(root: Path) -> dict[str, float | None]:
    """Return the seconds of each stage of the lock."""
    from visor.tracking.state import read_lock

    try:
        stages = read_lock(root)
    except UserError:  # Reported as ``problem``.
        return {}
    try:
        recorded = stage_seconds(root)
    except ValueError:  # Writing a file of seconds was interrupted.
        recorded = {}
    return {name: recorded.get(name) for name in sorted(stages)}

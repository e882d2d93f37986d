"""A study: the numbers of the pipeline over many seeds, all values kept, and the bound that they put on one more run.

``reference/study.json`` holds each value with its seed, commit and machine, as MLPerf keeps its reference
runs. Gates on trained numbers, and ``visor compare``, take the spread from there.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from scipy.special import stdtrit

from visor.core.errors import UserError, shorten
from visor.core.files import git, read_json, read_metrics, write_text
from visor.core.tables import Table, text_table
from visor.report.gates import GateBounds
from visor.report.machine import describe_machine
from visor.tracking.state import read_lock

STUDY = Path("reference/study.json")
CONFIDENCE = 0.99  # of each of the two bounds
DIGITS = 6  # of each recorded number


class Run(BaseModel):
    """One run of a study: ``stages`` had this seed, all of the pipeline if there are none."""

    model_config = ConfigDict(extra="forbid")
    seed: int
    stages: tuple[str, ...]
    commit: str
    machine: dict[str, str]


class Study(BaseModel):
    """Runs, and for each number (``FILE:KEY`` below ``metrics/``) its value in each run, None where it has none."""

    model_config = ConfigDict(extra="forbid")
    runs: list[Run] = []
    numbers: dict[str, list[float | None]] = {}

    def values(self, name: str) -> list[float]:
        """Return the values of a number, none if it was not studied."""
        return [value for value in self.numbers.get(name, []) if value is not None]


class Bounds(NamedTuple):
    """What one more run stays above, and below, each with ``CONFIDENCE``."""

    low: float
    high: float


def prediction_bounds(values: Sequence[float]) -> Bounds:
    """Return the bounds of one more value: mean ∓ t(0.99, n−1)·sd·√(1 + 1/n), or the extreme seen if that is looser.

    Args:
        values: n ≥ 2 values of independent runs. With 8, the bounds are 3.2 standard deviations from the mean.
    """
    n = len(values)
    reach = float(stdtrit(n - 1, CONFIDENCE)) * stdev(values) * math.sqrt(1 + 1 / n)
    return Bounds(min(*values, fmean(values) - reach), max(*values, fmean(values) + reach))


def read_study(root: Path) -> Study:
    """Return the recorded study, an empty one if there is none.

    Raises:
        UserError: The file is not as ``visor study`` writes it.
    """
    path = root / STUDY
    if not path.exists():
        return Study()
    try:
        study = Study.model_validate(read_json(path))
    except ValidationError as error:
        key = shorten(".".join(map(str, error.errors()[0]["loc"])))
        raise UserError(f"{STUDY} is not as `visor study` writes it ({key}); restore it from Git") from None
    if any(len(values) != len(study.runs) for values in study.numbers.values()):
        raise UserError(f"{STUDY} has a number without a value for each run; restore it from Git")
    return study


def write_study(root: Path, study: Study) -> None:
    """Write a study as JSON, a line for each run and for each number."""
    runs = (json.dumps(run.model_dump(), ensure_ascii=False, sort_keys=True) for run in study.runs)
    numbers = (f"{json.dumps(name)}: {json.dumps(study.numbers[name])}" for name in sorted(study.numbers))
    write_text(root / STUDY, f'{{\n"runs": [\n{_lines(runs)}\n],\n"numbers": {{\n{_lines(numbers)}\n}}\n}}\n')


def add_run(study: Study, run: Run, numbers: Mapping[str, float]) -> Study:
    """Return the study with one more run; a number drops its values of runs that gave the seed to other stages."""
    columns = {}
    for name in [*study.numbers, *(numbers.keys() - study.numbers.keys())]:
        values = study.numbers.get(name, [None] * len(study.runs))
        if name in numbers:
            kinds = (earlier.stages == run.stages for earlier in study.runs)
            values = [value if same else None for value, same in zip(values, kinds, strict=True)]
        columns[name] = [*values, numbers.get(name)]
    return Study(runs=[*study.runs, run], numbers=columns)


def run_study(
    root: Path, study: Study, seeds: Sequence[int], stages: tuple[str, ...], threads: int, jobs: int = 1
) -> Iterator[tuple[int, int]]:
    """Run the seeds that ``study`` lacks, and record each as soon as it is there; yield its seed and how many are left.

    Args:
        root: The project.
        study: Runs so far; those of the same seed and stages are not run again.
        seeds: What replaces ``seed`` of ``params.yaml``.
        stages: Stages that get the seed; the others are taken as ``dvc.lock`` records them. All stages if empty.
        threads: Those of a run, for the description of the machine.
        jobs: Runs side by side.

    Raises:
        UserError: There is no commit, a stage is unknown, or one fails.
    """
    if unknown := sorted(set(stages) - read_lock(root).keys()):
        raise UserError(f"--stages: {', '.join(unknown)} is no stage of dvc.lock; see `dvc stage list`")
    done = {run.seed for run in study.runs if run.stages == stages}
    left = [seed for seed in seeds if seed not in done]
    machine, commit = describe_machine(threads), git(root, "rev-parse", "--verify", "-q", "HEAD") or ""
    known = read_metrics(root / "metrics").keys()  # Other seeds have other people, and numbers that name them.
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_seed, root, seed, stages): seed for seed in left}
        for place, job in enumerate(as_completed(running), 1):
            numbers = {name: value for name, value in job.result().items() if name in known}
            study = add_run(study, Run(seed=running[job], stages=stages, commit=commit, machine=machine), numbers)
            write_study(root, study)
            yield running[job], len(left) - place


def run_seed(root: Path, seed: int, stages: tuple[str, ...]) -> dict[str, float]:
    """Run the committed pipeline with another seed in a temporary clone, and return its numbers to ``DIGITS`` digits.

    The clone shares the cache of DVC, so that a seed that was interrupted goes on where it stopped, and has a database
    of MLflow of its own.

    Args:
        root: The project.
        seed: Replaces ``seed`` of ``params.yaml``.
        stages: Stages that get the seed; the others are taken as ``dvc.lock`` records them. All stages if empty.

    Raises:
        UserError: There is no commit, or a stage fails.
    """
    root = root.resolve()
    cache = _dvc(root, "cache", "dir", capture=True).strip()
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="study-", dir=root / ".dvc/tmp") as folder:
        clone = Path(folder) / "project"
        git(root, "clone", "-q", "--shared", ".", str(clone))
        _dvc(clone, "config", "--local", "cache.dir", cache)
        if stages:
            _dvc(clone, "checkout", "-q")
        _write_seed(clone / "params.yaml", seed)
        _dvc(clone, "repro", *(["--single-item", *stages] if stages else []))
        lock = read_lock(clone)
        made = {out["path"] for stage in stages or lock for out in lock[stage].get("outs", [])}
        return {
            name: float(f"{value:.{DIGITS}g}")
            for name, value in read_metrics(clone / "metrics").items()
            if _is_made(f"metrics/{name.partition(':')[0]}.json", made) and math.isfinite(value)
        }


def study_table(study: Study, gates: Mapping[str, GateBounds]) -> Table:
    """Return, for each gate whose number was studied, its spread, its bounds by the rule, and the gate's own."""

    def rows() -> Iterator[tuple[str, list[str]]]:
        for name, gate in gates.items():
            if len(values := study.values(name)) > 1:
                low, high = prediction_bounds(values)
                spread = (fmean(values), stdev(values), min(values), max(values))
                own = ("" if bound is None else f"{bound:g}" for bound in (gate.min, gate.max))
                yield name, [str(len(values)), *(f"{number:.4g}" for number in (*spread, low, high)), *own]

    columns = ("n", "mean", "sd", "lowest", "highest", "bound below", "bound above", "gate's min", "gate's max")
    return text_table("metric", columns, rows(), "Gates by the study")


def _is_made(path: str, made: Iterable[str]) -> bool:
    return any(path == out or path.startswith(f"{out}/") for out in made)


def _write_seed(path: Path, seed: int) -> None:
    yaml = YAML()
    params: Any = yaml.load(path)
    params["seed"] = seed
    yaml.dump(params, path)


def _dvc(root: Path, *words: str, capture: bool = False) -> str:
    """Run DVC in ``root`` with the code that is there, and return what it prints if that is captured."""
    own = {"PYTHONPATH": str(root / "src"), "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}"}
    environment = {name: value for name, value in os.environ.items() if name not in ("DVC_ROOT", "DVC_STAGE")} | own
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE if capture else None, text=True)
    if done.returncode:
        raise UserError(f"`dvc {words[0]}` failed in a clone of the last commit; run `dvc repro` here and commit first")
    return done.stdout or ""


def _lines(items: Iterable[str]) -> str:
    return ",\n".join(items)

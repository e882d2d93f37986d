"""The state of the pipeline that files record: ``dvc.lock``, ``data.dvc``, ``params.yaml`` and ``metrics/``."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from visor.core.config import read_yaml
from visor.core.errors import UserError, shorten
from visor.core.files import flatten, read_metrics

METRICS = "metrics"
PLOTS = "plots"
HISTORY = "metrics/history"
UNTRACKED_STAGES = ("report", "track")  # no result depends on them
ADVICE = "run `dvc repro` in the project's root"


class Stage(NamedTuple):
    """One stage: SHA-256 of its lock entry, flat params, MD5 of inputs by path, metrics, files to log."""

    name: str
    digest: str
    params: dict[str, Any]
    inputs: dict[str, str]
    metrics: dict[str, float]
    files: tuple[Path, ...]


class State(NamedTuple):
    """One pipeline state: all params but the gates, which change no result; MD5 of the pinned data by path."""

    key: str
    params: dict[str, Any]
    inputs: dict[str, str]
    metrics: dict[str, float]
    stages: tuple[Stage, ...]


def read_state(root: Path) -> State:
    """Read the state that ``dvc.lock`` records, after checking that the workspace matches it.

    Its key is made of what people compare (params, data, metrics, curves and figures), hence of what the stage
    ``track`` depends on: an edited comment makes no second state, and a clone has the same key.

    Raises:
        UserError: A file is missing, or the workspace differs from ``dvc.lock``.
    """
    lock, params = read_lock(root), read_yaml(root / "params.yaml", ADVICE)
    data = read_pin(root).get("outs", []) if (root / "data.dvc").exists() else []
    entries: dict[str, Any] = {name: lock.get(name) for name in stage_names(root) if name not in UNTRACKED_STAGES}
    for name, entry in entries.items():
        if entry is None:
            raise UserError(f"dvc.lock has no entry for the stage {name}; run `dvc repro`")
        _require_current(root, params, name, entry)
    inputs = {out["path"]: out["md5"] for out in data if "md5" in out}
    settings = {key: value for entry in entries.values() for key, value in locked_params(entry).items()}
    results = {path: md5 for entry in entries.values() for path, md5 in _results(entry).items()}
    metrics = read_metrics(root / METRICS)
    outputs = [*inputs, *(out["path"] for entry in entries.values() for out in entry.get("outs", []))]
    stages = tuple(_stage(root, name, entry, metrics, outputs) for name, entry in sorted(entries.items()))
    return State(
        key=_sha256([settings, results, inputs]),
        params=flatten({name: block for name, block in params.items() if name != "gates"}),
        inputs=inputs,
        # Not all of metrics/: files of a removed stage may still be there.
        metrics={name: value for stage in stages for name, value in stage.metrics.items()},
        stages=stages,
    )


class _File(BaseModel):
    """A dependency or an output, as DVC records it."""

    path: str
    md5: str = ""


class _Entry(BaseModel):
    """What DVC records of one stage, or of one pin such as ``data.dvc``."""

    params: dict[str, dict[str, Any]] = {}
    deps: list[_File] = []
    outs: list[_File] = []


class _Lock(BaseModel):
    stages: dict[str, _Entry] = {}


def read_lock(root: Path) -> dict[str, Any]:
    """Return the entries of ``dvc.lock`` by stage.

    Raises:
        UserError: The file is missing, or is not as DVC writes it.
    """
    return _read_record(root / "dvc.lock", _Lock).get("stages", {})


def read_pin(root: Path) -> dict[str, Any]:
    """Return what ``data.dvc`` says: ``outs``, and ``deps`` if it imports them.

    Raises:
        UserError: The file is missing, or is not as DVC writes it.
    """
    return _read_record(root / "data.dvc", _Entry)


def _read_record(path: Path, form: type[BaseModel]) -> dict[str, Any]:
    content = read_yaml(path, ADVICE)
    try:
        form.model_validate(content)
    except ValidationError as error:
        key = shorten(".".join(map(str, error.errors()[0]["loc"])))
        raise UserError(f"{path.name} is not as DVC writes it ({key}); restore it from Git and {ADVICE}") from None
    return content


def _stage(root: Path, name: str, entry: Mapping[str, Any], metrics: dict[str, float], outputs: list[str]) -> Stage:
    files, dependencies = _results(entry), entry.get("deps", [])
    return Stage(
        name=name,
        digest=_sha256(entry),
        params=flatten(locked_params(entry)),
        inputs={dep["path"]: dep.get("md5", "") for dep in dependencies if _is_in(dep["path"], *outputs)},
        metrics={
            metric: value
            for metric, value in metrics.items()
            if _is_in(f"{METRICS}/{metric.partition(':')[0]}.json", *files)
        },
        files=tuple(path for file in files for path in _files(root / file)),
    )


def _require_current(root: Path, params: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> None:
    """Raise an error if params or results differ from the lock's: such a state never existed."""
    for key, value in locked_params(entry).items():
        if look_up(params, key) != value:
            raise UserError(f"params.yaml: {key} differs from dvc.lock (stage {name}); run `dvc repro`")
    for path, md5 in _results(entry).items():
        if not (root / path).exists() or _md5(root / path) != md5:
            raise UserError(f"{path} differs from dvc.lock (stage {name}); run `dvc repro`")


def locked_params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of an entry of ``dvc.lock`` by dotted key."""
    return {key: value for block in entry.get("params", {}).values() for key, value in block.items()}


def _results(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return MD5 by path of the outputs in ``metrics/`` and ``plots/``."""
    return {out["path"]: out.get("md5", "") for out in entry.get("outs", []) if _is_in(out["path"], METRICS, PLOTS)}


def _is_in(path: str, *folders: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def look_up(params: Any, key: str) -> Any:
    """Return the value at a dotted key, None if there is none."""
    for part in key.split("."):
        params = params.get(part) if isinstance(params, Mapping) else None
    return params


def _files(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]


def _md5(path: Path) -> str:
    """Return the MD5 as DVC writes it: of a file's bytes, or of the sorted JSON list of a folder's files."""
    if not path.is_dir():
        return hashlib.md5(path.read_bytes()).hexdigest()
    entries = [{"md5": _md5(item), "relpath": item.relative_to(path).as_posix()} for item in _files(path)]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def stage_names(root: Path) -> list[str]:
    """Return the names of the stages of ``dvc.yaml`` (``dvc.lock`` keeps entries of removed ones).

    Raises:
        UserError: DVC cannot read ``dvc.yaml``.
    """
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"dvc.yaml cannot be read ({shorten(result.stderr, 300)}); correct it")
    return result.stdout.split()

"""A pipeline state as the files tell it: ``dvc.lock``, ``data.dvc``, ``params.yaml`` and ``metrics/``."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from visor.core.errors import UserError
from visor.core.files import flatten, read_metrics

METRICS = "metrics"
PLOTS = "plots"
HISTORY = "metrics/history"
UNTRACKED_STAGES = ("report", "track")  # no result depends on them


class Stage(NamedTuple):
    """One stage: SHA-256 of its lock entry, flat params, MD5 of inputs by path, numbers, shown files."""

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
    """Read the state that ``dvc.lock`` records, once the workspace is seen to hold it.

    Its key is made of what a person compares (params, data, numbers, curves and figures), hence of what the
    mirroring stage depends on: an edited comment makes no second state, and a clone finds the same key.

    Raises:
        UserError: a file is missing, or the workspace differs from ``dvc.lock``.
    """
    locked = _load(root / "dvc.lock").get("stages", {})
    params = _load(root / "params.yaml")
    data = _load(root / "data.dvc")["outs"] if (root / "data.dvc").exists() else []
    entries = {name: locked.get(name) for name in _stage_names(root) if name not in UNTRACKED_STAGES}
    for name, entry in entries.items():
        if entry is None:
            raise UserError(f"dvc.lock has no entry for the stage {name}; run `dvc repro`")
        _require_current(root, params, name, entry)
    inputs = {out["path"]: out["md5"] for out in data if "md5" in out}
    settings = {key: value for entry in entries.values() for key, value in _params(entry).items()}
    shown = {path: md5 for entry in entries.values() for path, md5 in _shown(entry).items()}
    metrics = read_metrics(root / METRICS)
    made = [*inputs, *(out["path"] for entry in entries.values() for out in entry.get("outs", []))]
    stages = tuple(_stage(root, name, entry, metrics, made) for name, entry in sorted(entries.items()))
    return State(
        key=_sha256([settings, shown, inputs]),
        params=flatten({name: block for name, block in params.items() if name != "gates"}),
        inputs=inputs,
        # Not all of metrics/: files of a removed stage may still lie there.
        metrics={name: value for stage in stages for name, value in stage.metrics.items()},
        stages=stages,
    )


def _stage(root: Path, name: str, entry: Mapping[str, Any], metrics: dict[str, float], made: list[str]) -> Stage:
    outs = _shown(entry)
    return Stage(
        name=name,
        digest=_sha256(entry),
        params=flatten(_params(entry)),
        inputs={
            dep["path"]: dep["md5"] for dep in entry.get("deps", []) if any(_inside(dep["path"], out) for out in made)
        },
        metrics={
            metric: value
            for metric, value in metrics.items()
            if any(_inside(f"{METRICS}/{metric.partition(':')[0]}.json", out) for out in outs)
        },
        files=tuple(path for out in outs for path in _files(root / out)),
    )


def _require_current(root: Path, params: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> None:
    """A state half old and half new is nobody's: refuse it."""
    for key, value in _params(entry).items():
        if _lookup(params, key) != value:
            raise UserError(f"params.yaml: {key} is not what dvc.lock records for {name}; run `dvc repro`")
    for path, md5 in _shown(entry).items():
        if not (root / path).exists() or _md5(root / path) != md5:
            raise UserError(f"{path} is not what dvc.lock records for {name}; run `dvc repro`")


def _params(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for block in entry.get("params", {}).values() for key, value in block.items()}


def _shown(entry: Mapping[str, Any]) -> dict[str, str]:
    """MD5 by path of the outputs that people look at: those inside ``metrics/`` and ``plots/``."""
    outs = entry.get("outs", [])
    return {out["path"]: out["md5"] for out in outs if any(_inside(out["path"], top) for top in (METRICS, PLOTS))}


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _lookup(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = params.get(part) if isinstance(params, Mapping) else None
    return params


def _files(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]


def _md5(path: Path) -> str:
    """MD5 as DVC writes it: of a file's bytes, or of the sorted JSON list of a folder's files."""
    if not path.is_dir():
        return hashlib.md5(path.read_bytes()).hexdigest()
    listing = [{"md5": _md5(item), "relpath": item.relative_to(path).as_posix()} for item in _files(path)]
    listing.sort(key=lambda item: item["relpath"])
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _load(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise UserError(f"{path.name} is missing; run `dvc repro` in the project's root") from None
    return content


def _stage_names(root: Path) -> list[str]:
    """Names of the stages of ``dvc.yaml`` (``dvc.lock`` keeps entries of removed ones)."""
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listed.returncode:
        raise UserError(f"dvc.yaml cannot be read ({' '.join(listed.stderr.split())}); mend it")
    return listed.stdout.split()

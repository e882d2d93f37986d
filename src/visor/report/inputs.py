"""Reads what the page is made of: params, numbers by name, curves, digests."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from visor.core.config import load_params
from visor.core.errors import UserError
from visor.core.files import flatten, numeric_leaves, read_json, read_metrics
from visor.core.params import Params
from visor.tracking.history import History, read_history

LINES = ("poison_budget", "fine_pruning")  # CSV files below metrics/ of which single lines are shown


class RunData(NamedTuple):
    """A run as its files tell it.

    ``numbers`` are named ``FILE:KEY`` (JSON below ``metrics/``, without ``.json``), ``metrics/x.csv:ROW:COLUMN`` (ROW
    counts lines of data from 0) or ``artifacts/….json:KEY``; ``lines`` are the words and numbers of those CSV files.
    ``top`` has, by recogniser, whom some faces are taken for. ``settings`` are all params under dotted names.
    ``digests`` maps what ``data.dvc`` pins to MD5; ``packages`` is the SHA-256 of ``requirements.lock``.
    """

    params: Params
    settings: dict[str, str]
    numbers: dict[str, float]
    lines: dict[str, list[dict[str, str]]]
    top: dict[str, list[dict[str, Any]]]
    histories: dict[str, History]
    digests: dict[str, str]
    packages: str


def read_run_data(root: Path) -> RunData:
    """Read the files of the project ``root``.

    Raises:
        UserError: one is missing or not what it should be.
    """
    params = load_params(root / "params.yaml")
    metrics = root / "metrics"
    found = read_metrics(metrics)
    if not found:
        raise UserError("metrics/ holds no number; run `dvc repro` to make them")
    lines = {name: _rows(path) for name in LINES if (path := metrics / f"{name}.csv").exists()}
    for name, rows in lines.items():
        for place, row in enumerate(rows):
            found |= {
                f"metrics/{name}.csv:{place}:{column}": float(row[column]) for column in row if _number(row, column)
            }
    top = {name: _top(root, name, found) for name in params.recognition_attack.white_box}
    return RunData(
        params=params,
        settings={name: _word(value) for name, value in sorted(flatten(read_yaml(root / "params.yaml")).items())},
        numbers=found,
        lines=lines,
        top=top,
        histories={_stem(path, metrics / "history"): read_history(path) for path in _csv_files(metrics / "history")},
        digests={str(out["path"]): str(out.get("md5", "")) for out in read_yaml(root / "data.dvc").get("outs", [])},
        packages=hashlib.sha256(_bytes(root / "requirements.lock")).hexdigest(),
    )


def _top(root: Path, name: str, found: dict[str, float]) -> list[dict[str, Any]]:
    """Whom faces are taken for; their confidences join the numbers under the place where they stand."""
    path = f"artifacts/recognition/{name}/top.json"
    faces: list[dict[str, Any]] = read_json(root / path)["faces"]
    for place, face in enumerate(faces):
        tops = {when: dict(enumerate(best)) for when, best in face.items() if isinstance(best, list)}
        found |= {f"{path}:faces.{place}.{key}": value for key, value in numeric_leaves(tops).items()}
    return faces


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _number(row: dict[str, str], column: str) -> bool:
    try:
        float(row[column])
    except (TypeError, ValueError):
        return False
    return True


def _csv_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.csv"))


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the keys of a YAML file.

    Raises:
        UserError: it is missing, or is not YAML, or has no keys.
    """
    try:
        content = YAML(typ="safe").load(_bytes(path))
    except YAMLError as error:
        raise UserError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path.name} holds no keys; restore it from Git")
    return content


def _word(value: Any) -> str:
    """A param as text that does not depend on the order of keys."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path.name} is missing; restore it from Git or run `dvc repro`") from None

"""Reading what the page is made of: params, metrics by name, curves, digests."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from visor.core.config import load_params, read_yaml
from visor.core.errors import UserError
from visor.core.files import flatten, numeric_leaves, read_json, read_metrics, sha256_of_file
from visor.core.params import Params
from visor.tracking.history import History, read_history
from visor.tracking.state import read_pin

CSV_FILES = ("poison_budget", "fine_pruning")  # below metrics/, of which single rows are shown
RESTORE = "restore it from Git or run `dvc repro`"


class RunData(NamedTuple):
    """The files of one run.

    Attributes:
        params: ``params.yaml``.
        settings: All of its values as text, by dotted name.
        metrics: Numbers by ``FILE:KEY`` (JSON below ``metrics/``, without ``.json``), ``metrics/x.csv:ROW:COLUMN``
            (rows of data count from 0) or ``artifacts/….json:KEY``.
        rows: Rows of ``CSV_FILES``, by name of the file.
        top: Top classes of some faces, by recogniser.
        histories: Training curves, by path below ``metrics/history``.
        digests: MD5 of what ``data.dvc`` pins, by path.
        requirements: SHA-256 of ``requirements.lock``.
    """

    params: Params
    settings: dict[str, str]
    metrics: dict[str, float]
    rows: dict[str, list[dict[str, str]]]
    top: dict[str, list[dict[str, Any]]]
    histories: dict[str, History]
    digests: dict[str, str]
    requirements: str


def read_run_data(root: Path) -> RunData:
    """Read the files of the project ``root``.

    Raises:
        UserError: A file is missing or malformed.
    """
    params, folder = load_params(root / "params.yaml"), root / "metrics"
    metrics = read_metrics(folder)
    if not metrics:
        raise UserError("metrics/ has no numbers; run `dvc repro` to make them")
    rows = {name: _read_csv(path) for name in CSV_FILES if (path := folder / f"{name}.csv").exists()}
    for name, lines in rows.items():
        for place, line in enumerate(lines):
            metrics |= {f"metrics/{name}.csv:{place}:{key}": value for key, value in _numbers(line).items()}
    top = {name: _read_top(root, name, metrics) for name in params.classification_attack.networks}
    histories = sorted((folder / "history").rglob("*.csv"))
    try:
        requirements = sha256_of_file(root / "requirements.lock")
    except FileNotFoundError:
        raise UserError(f"requirements.lock is missing; {RESTORE}") from None
    return RunData(
        params=params,
        settings={key: _as_text(value) for key, value in sorted(flatten(read_yaml(root / "params.yaml")).items())},
        metrics=metrics,
        rows=rows,
        top=top,
        histories={
            path.relative_to(folder / "history").with_suffix("").as_posix(): read_history(path) for path in histories
        },
        digests={out["path"]: out.get("md5", "") for out in read_pin(root).get("outs", [])},
        requirements=requirements,
    )


def _read_top(root: Path, name: str, metrics: dict[str, float]) -> list[dict[str, Any]]:
    """Read the top classes of some faces, and add their confidences to the metrics."""
    path = f"artifacts/classification/{name}/top.json"
    faces: list[dict[str, Any]] = read_json(root / path)["faces"]
    for place, face in enumerate(faces):
        ranks = {when: dict(enumerate(best)) for when, best in face.items() if isinstance(best, list)}
        metrics |= {f"{path}:faces.{place}.{key}": value for key, value in numeric_leaves(ranks).items()}
    return faces


def _read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _numbers(line: dict[str, str]) -> dict[str, float]:
    """Return the columns of a CSV row that hold a number."""
    numbers = {}
    for column, text in line.items():
        try:
            numbers[column] = float(text)
        except (TypeError, ValueError):
            continue
    return numbers


def _as_text(value: Any) -> str:
    """Return a param as text that does not depend on the order of its keys."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)

"""One parent run for each pipeline state and one nested run for each of its stages."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from visor.tracking.history import History, read_history
from visor.tracking.key_metrics import key_metrics
from visor.tracking.state import HISTORY, Stage, State, read_state
from visor.tracking.store import log_batches, open_experiment, resolve

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "visor"
NOTE = "A state of the pipeline. Its nested runs, one for each stage, have every number and every training curve."
LOSSES = ("loss", "validation_loss")


class TrackedState(NamedTuple):
    """The key of the state, whether this call wrote it, and how many runs it has (the parent is one)."""

    state: str
    created: bool
    runs: int


def track_state(root: Path, uri: str | None = None) -> TrackedState:
    """Write the state that ``dvc.lock`` records into MLflow, unless it is there; mend a half-written one.

    Raises:
        UserError: the workspace differs from ``dvc.lock``, or MLflow cannot be reached.
    """
    state = read_state(root)
    with open_experiment(root, resolve(root, uri), EXPERIMENT) as (client, experiment):
        created = not _present(client, experiment, state.key)
        if created:
            _write(client, experiment, root, state)
    return TrackedState(state.key, created, 1 + len(state.stages))


def _present(client: "MlflowClient", experiment: str, key: str) -> bool:
    """Tell whether the state is there as a whole, and delete what an interrupted mirror left of it."""
    found = client.search_runs([experiment], f"tags.`dvc.state` = '{key}'")
    for parent in found:
        if parent.info.status != "FINISHED":
            nested = client.search_runs(
                [experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=1000
            )
            for run in [*nested, parent]:
                client.delete_run(run.info.run_id)
    return any(parent.info.status == "FINISHED" for parent in found)


def _write(client: "MlflowClient", experiment: str, root: Path, state: State) -> None:
    name = os.environ.get("DVC_EXP_NAME") or f"state {state.key[:8]}"
    tags = {"dvc.state": state.key, "mlflow.source.name": "dvc.yaml", "mlflow.note.content": NOTE, **_provenance(root)}
    parent = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    shown = [path for stage in state.stages for path in stage.files]
    log_batches(client, parent, _final(key_metrics(state.metrics)) | _losses(root, shown), state.params)
    _log_inputs(client, parent, state.inputs)
    for path in (root / "params.yaml", root / "dvc.lock"):
        client.log_artifact(parent, str(path))
    _log_files(client, parent, root, [path for path in shown if path.suffix == ".png"])
    for stage in state.stages:
        _write_stage(client, experiment, root, parent, stage)
    client.set_terminated(parent)  # last: a parent that is FINISHED is whole


def _write_stage(client: "MlflowClient", experiment: str, root: Path, parent: str, stage: Stage) -> None:
    tags = {"mlflow.parentRunId": parent, "dvc.stage": stage.name, "dvc.lock_sha256": stage.digest}
    run = client.create_run(experiment, tags=tags, run_name=stage.name).info.run_id
    log_batches(client, run, _final(stage.metrics) | _curves(root, stage.files), stage.params)
    _log_inputs(client, run, stage.inputs)
    _log_files(client, run, root, [path for path in stage.files if path.suffix == ".csv"])
    client.set_terminated(run)


def _final(metrics: Mapping[str, float]) -> dict[str, dict[int, float]]:
    return {name: {0: value} for name, value in metrics.items()}


def _curves(root: Path, files: Sequence[Path]) -> dict[str, dict[int, float]]:
    """Curves as ``history/<column>``: one name for every stage, so that their plots lie over each other."""
    histories = _histories(root, files)
    return {
        f"history/{column}" if len(histories) == 1 else f"history/{path.name}/{column}": curve
        for path, history in histories.items()
        for column, curve in history.curves().items()
    }


def _losses(root: Path, files: Sequence[Path]) -> dict[str, dict[int, float]]:
    """The losses of every training as ``<column>/<history>``, for two states' to lie over each other."""
    return {
        f"{column}/{path.as_posix()}": curve
        for path, history in _histories(root, files).items()
        for column, curve in history.curves().items()
        if column in LOSSES
    }


def _histories(root: Path, files: Sequence[Path]) -> dict[PurePath, History]:
    """Training curves by their path below ``metrics/history``, without its ending."""
    top = root / HISTORY
    paths = [path for path in files if path.suffix == ".csv" and path.is_relative_to(top)]
    return {path.relative_to(top).with_suffix(""): read_history(path) for path in paths}


def _log_inputs(client: "MlflowClient", run: str, inputs: Mapping[str, str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = [InputTag("mlflow.data.context", "input")]
    datasets = [
        DatasetInput(Dataset(path, md5, "local", json.dumps({"uri": path})), context) for path, md5 in inputs.items()
    ]
    if datasets:
        client.log_inputs(run, datasets)


def _log_files(client: "MlflowClient", run: str, root: Path, paths: list[Path]) -> None:
    for path in paths:
        client.log_artifact(run, str(path), path.parent.relative_to(root).as_posix())


def _provenance(root: Path) -> dict[str, str]:
    """Tags that say where the state comes from; without Git there is nothing to say."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()

    tags = {
        "git.commit": git("rev-parse", "--verify", "-q", "HEAD"),
        "git.branch": git("symbolic-ref", "--short", "-q", "HEAD"),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
    if tags["git.commit"]:
        tags["git.dirty"] = str(bool(git("status", "--porcelain"))).lower()
    return {name: value for name, value in tags.items() if value}

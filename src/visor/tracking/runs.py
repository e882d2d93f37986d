"""One parent run for each pipeline state and one nested run for each of its stages."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import psutil

from visor.core.files import HOST, git
from visor.tracking.history import History, read_history
from visor.tracking.key_metrics import key_metrics
from visor.tracking.state import HISTORY, Stage, State, read_state
from visor.tracking.store import Curves, log_batches, open_experiment, resolve

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "visor"
NOTE = "Pipeline state. The nested runs (one per stage) contain all metrics and training curves."
LOSSES = ("loss", "validation_loss")


class TrackedState(NamedTuple):
    """Key of the state, whether this call logged it, and its number of runs (the parent is one)."""

    state: str
    created: bool
    runs: int


def track_state(root: Path, uri: str | None = None) -> TrackedState:
    """Log the state that ``dvc.lock`` records to MLflow unless it is there; replace a partly logged one.

    Raises:
        UserError: The workspace differs from ``dvc.lock``, or MLflow cannot be reached.
    """
    state = read_state(root)
    with open_experiment(root, resolve(root, uri), EXPERIMENT) as (client, experiment):
        created = not _is_logged(client, experiment, state.key)
        if created:
            _log_state(client, experiment, root, state)
    return TrackedState(state.key, created, 1 + len(state.stages))


def _is_logged(client: "MlflowClient", experiment: str, key: str) -> bool:
    """Return whether the whole state is logged, and delete the runs of interrupted calls on this machine."""
    parents = client.search_runs([experiment], f"tags.`dvc.state` = '{key}'")
    for parent in parents:
        if parent.info.status != "FINISHED" and _is_abandoned(parent):
            is_nested = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
            for run in [*client.search_runs([experiment], is_nested, max_results=1000), parent]:
                client.delete_run(run.info.run_id)
    return any(parent.info.status == "FINISHED" for parent in parents)


def _is_abandoned(parent: "Run") -> bool:
    """Return whether an interrupted call on this machine left a run; on another machine its process may go on."""
    host, _, number = parent.data.tags.get("visor.process", "").partition(" ")
    return host == HOST and int(number) not in {*psutil.pids()} - {os.getpid()}


def _log_state(client: "MlflowClient", experiment: str, root: Path, state: State) -> None:
    name = os.environ.get("DVC_EXP_NAME") or f"state {state.key[:8]}"
    tags = {"dvc.state": state.key, "mlflow.source.name": "dvc.yaml", "mlflow.note.content": NOTE, **_origin(root)}
    tags["visor.process"] = f"{HOST} {os.getpid()}"
    parent = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    files = [path for stage in state.stages for path in stage.files]
    log_batches(client, parent, _as_curves(key_metrics(state.metrics)) | _losses(root, files), state.params)
    _log_inputs(client, parent, state.inputs)
    for path in (root / "params.yaml", root / "dvc.lock"):
        client.log_artifact(parent, str(path))
    _log_files(client, parent, root, [path for path in files if path.suffix == ".png"])
    for stage in state.stages:
        _log_stage(client, experiment, root, parent, stage)
    client.set_terminated(parent)  # Last: a parent that is FINISHED has everything.


def _log_stage(client: "MlflowClient", experiment: str, root: Path, parent: str, stage: Stage) -> None:
    tags = {"mlflow.parentRunId": parent, "dvc.stage": stage.name, "dvc.lock_sha256": stage.digest}
    run = client.create_run(experiment, tags=tags, run_name=stage.name).info.run_id
    log_batches(client, run, _as_curves(stage.metrics) | _curves(root, stage.files), stage.params)
    _log_inputs(client, run, stage.inputs)
    _log_files(client, run, root, [path for path in stage.files if path.suffix == ".csv"])
    client.set_terminated(run)


def _as_curves(metrics: Mapping[str, float]) -> Curves:
    return {name: {0: value} for name, value in metrics.items()}


def _curves(root: Path, files: Sequence[Path]) -> Curves:
    """Return curves as ``history/<column>``: one name for all stages, so that MLflow plots them together."""
    histories = _histories(root, files)
    return {
        f"history/{column}" if len(histories) == 1 else f"history/{path.name}/{column}": curve
        for path, history in histories.items()
        for column, curve in history.curves().items()
    }


def _losses(root: Path, files: Sequence[Path]) -> Curves:
    """Return the losses of all trainings as ``<column>/<history>``, so that MLflow plots those of states together."""
    return {
        f"{column}/{path.as_posix()}": curve
        for path, history in _histories(root, files).items()
        for column, curve in history.curves().items()
        if column in LOSSES
    }


def _histories(root: Path, files: Sequence[Path]) -> dict[PurePath, History]:
    """Return training curves by their path below ``metrics/history``, without its suffix."""
    folder = root / HISTORY
    paths = [path for path in files if path.suffix == ".csv" and path.is_relative_to(folder)]
    return {path.relative_to(folder).with_suffix(""): read_history(path) for path in paths}


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


def _origin(root: Path) -> dict[str, str]:
    """Return the tags of commit, branch and DVC experiment, without those that do not apply."""
    tags = {
        "git.commit": git(root, "rev-parse", "--verify", "-q", "HEAD"),
        "git.branch": git(root, "symbolic-ref", "--short", "-q", "HEAD"),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME"),
    }
    if tags["git.commit"]:
        tags["git.dirty"] = str(bool(git(root, "status", "--porcelain"))).lower()
    return {name: value for name, value in tags.items() if value}

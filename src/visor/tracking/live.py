"""Live curves of a training that still runs, read from its history file into an experiment of their own."""

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from visor.tracking import runs
from visor.tracking.history import History, read_history
from visor.tracking.state import HISTORY
from visor.tracking.store import log_batches, open_experiment, resolve

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "visor-live"
Logged = dict[str, tuple[str, int]]


def follow(root: Path, uri: str | None = None, pause: float = 2.0) -> None:
    """Log new epochs of ``metrics/history/*.csv`` every ``pause`` seconds until interrupted.

    Raises:
        UserError: MLflow cannot be reached, or a history is not one.
    """
    logged: Logged = {}
    address = resolve(root, uri)
    with open_experiment(root, address, runs.EXPERIMENT):
        pass  # it comes first: links to the record name the experiment by its id, which is then always the same
    with open_experiment(root, address, EXPERIMENT) as (client, experiment):
        try:
            while True:
                update(client, experiment, root / HISTORY, logged)
                time.sleep(pause)
        except KeyboardInterrupt:
            for run, _ in logged.values():
                client.set_terminated(run)


def update(client: "MlflowClient", experiment: str, folder: Path, logged: Logged) -> int:
    """Log the epochs that ``logged`` (curve → run id, last epoch) lacks, and return how many there were.

    A curve is known by its file and its first epoch: a training that starts again with other numbers gets a
    new run, one that repeats the old numbers goes on in the old run.
    """
    added = 0
    for path in sorted(folder.rglob("*.csv")):
        history = _read(path)
        if not history.rows:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        first = next(iter(history.rows.items()))
        identity = hashlib.sha256(repr((name, history.columns, first)).encode()).hexdigest()
        if identity not in logged:
            logged[identity] = _adopt(client, experiment, name, identity, history.columns)
        run, last = logged[identity]
        fresh = {epoch: values for epoch, values in history.rows.items() if epoch > last}
        if fresh:
            log_batches(client, run, History(history.columns, fresh).curves())
            logged[identity] = run, max(fresh)
        added += len(fresh)
    return added


def _read(path: Path) -> History:
    try:
        return read_history(path)
    except FileNotFoundError:  # DVC clears the outputs of a stage before it starts
        return History((), {})


def _adopt(
    client: "MlflowClient", experiment: str, name: str, identity: str, columns: tuple[str, ...]
) -> tuple[str, int]:
    """Return the curve's run, made when it is new, and the last epoch that the run has (-1: none)."""
    from visor.tracking.store import mlflow_name

    for run in client.search_runs([experiment], f"tags.`history.sha256` = '{identity}'"):
        client.update_run(run.info.run_id, status="RUNNING")
        points = client.get_metric_history(run.info.run_id, mlflow_name(columns[-1]))
        return run.info.run_id, max((point.step for point in points), default=-1)
    tags = {"history.file": name, "history.sha256": identity}
    return client.create_run(experiment, tags=tags, run_name=name).info.run_id, -1

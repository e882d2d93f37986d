"""Live curves of a running training, read from its history file into an experiment of their own."""

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from visor.tracking import runs
from visor.tracking.history import History, read_history
from visor.tracking.state import HISTORY
from visor.tracking.store import log_batches, mlflow_name, open_experiment, resolve

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "visor-live"
LoggedCurves = dict[str, tuple[str, int]]  # digest of a curve → its run id and last logged epoch


def follow(root: Path, uri: str | None = None, pause: float = 2.0) -> None:
    """Log new epochs of ``metrics/history/**/*.csv`` every ``pause`` seconds until interrupted.

    Raises:
        UserError: MLflow cannot be reached, or a history is malformed.
    """
    logged: LoggedCurves = {}
    address = resolve(root, uri)
    with open_experiment(root, address, runs.EXPERIMENT):
        pass  # Created first, because links to the record contain its id, which is then always the same.
    with open_experiment(root, address, EXPERIMENT) as (client, experiment):
        try:
            while True:
                update(client, experiment, root / HISTORY, logged)
                time.sleep(pause)
        except KeyboardInterrupt:
            for run, _ in logged.values():
                client.set_terminated(run)


def update(client: "MlflowClient", experiment: str, folder: Path, logged: LoggedCurves) -> int:
    """Log the epochs that ``logged`` lacks, add them to it, and return their number.

    A curve is identified by its file and its first epoch: a training that starts again with other numbers gets a new
    run, one that repeats the old numbers continues the old run.
    """
    added = 0
    for path in sorted(folder.rglob("*.csv")):
        try:
            history = read_history(path)
        except FileNotFoundError:  # DVC deletes the outputs of a stage before it starts.
            continue
        if not history.rows:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        first = next(iter(history.rows.items()))
        digest = hashlib.sha256(repr((name, history.columns, first)).encode()).hexdigest()
        if digest not in logged:
            logged[digest] = _find_or_create_run(client, experiment, name, digest, history.columns)
        run, last = logged[digest]
        new_rows = {epoch: values for epoch, values in history.rows.items() if epoch > last}
        if new_rows:
            log_batches(client, run, History(history.columns, new_rows).curves())
            logged[digest] = run, max(new_rows)
        added += len(new_rows)
    return added


def _find_or_create_run(
    client: "MlflowClient", experiment: str, name: str, digest: str, columns: tuple[str, ...]
) -> tuple[str, int]:
    """Return the id of the curve's run, and the last epoch that the run has (-1: none)."""
    for run in client.search_runs([experiment], f"tags.`history.sha256` = '{digest}'"):
        client.update_run(run.info.run_id, status="RUNNING")
        points = client.get_metric_history(run.info.run_id, mlflow_name(columns[-1]))
        return run.info.run_id, max((point.step for point in points), default=-1)
    tags = {"history.file": name, "history.sha256": digest}
    return client.create_run(experiment, tags=tags, run_name=name).info.run_id, -1

"""Opening MLflow: which address, which experiment, and errors a user can read."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visor.core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
SERVERS = ("http", "https", "databricks")  # these choose the place of their artifacts themselves


def home(root: Path) -> Path:
    """The project's own folder; experiments of DVC run in a copy that vanishes, and name the original."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def resolve(root: Path, uri: str | None = None) -> str:
    """Return ``uri``, else ``MLFLOW_TRACKING_URI``, else the database ``mlflow.db`` of the project.

    Raises:
        UserError: MLflow no longer writes to such an address.
    """
    address = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home(root) / 'mlflow.db'}"
    if address.partition(":")[0].partition("+")[0] not in SCHEMES:
        raise UserError(
            f"MLFLOW_TRACKING_URI: {_masked(address)} is neither a database nor a server; "
            "unset it, or use an address such as sqlite:////folder/mlflow.db or http://host:5000"
        )
    return address


@contextmanager
def open_experiment(root: Path, address: str, experiment: str) -> Iterator[tuple["MlflowClient", str]]:
    """Yield a client of MLflow at ``address`` and the id of ``experiment``, made when it is new.

    Raises:
        UserError: MLflow cannot be reached, or refuses.
    """
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = MlflowClient(address)
        found = client.get_experiment_by_name(experiment)
        if found and found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        yield client, found.experiment_id if found else _create(client, root, address, experiment)
    except (MlflowException, SQLAlchemyError) as error:
        reason = _masked(" ".join(str(error).split()))[:200]
        raise UserError(f"MLflow at {_masked(address)} failed ({reason}); check MLFLOW_TRACKING_URI") from None


def log_batches(
    client: "MlflowClient",
    run_id: str,
    curves: Mapping[str, Mapping[int, float]],
    params: Mapping[str, object] | None = None,
) -> None:
    """Log ``params`` and ``{metric: {step: value}}`` in the largest batches that MLflow takes."""
    from mlflow.entities import Metric, Param
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()  # and a second a step: some of MLflow's charts go by time
    points = [
        Metric(mlflow_name(name), value, now + 1000 * step, step)
        for name, curve in curves.items()
        for step, value in curve.items()
    ]
    settings = [Param(mlflow_name(name), str(value)) for name, value in (params or {}).items()]
    batches: Iterable[tuple[list[Any], list[Any]]] = zip_longest(
        _parts(points, 900), _parts(settings, 100), fillvalue=[]
    )
    for some, few in batches:
        client.log_batch(run_id, metrics=some, params=few)


def mlflow_name(name: str) -> str:
    """Return ``name`` in the letters that MLflow allows everywhere; its pages fold names at a slash."""
    return re.sub(r"[^\w.\- /]", "_", name.replace(":", "/"))


def _parts(items: list[Any], most: int) -> list[list[Any]]:
    return [items[start : start + most] for start in range(0, len(items), most)]


def _create(client: "MlflowClient", root: Path, address: str, experiment: str) -> str:
    from mlflow.exceptions import MlflowException

    server = address.partition(":")[0] in SERVERS
    try:
        return client.create_experiment(experiment, None if server else (home(root) / "mlruns").as_uri())
    except MlflowException:
        raced = client.get_experiment_by_name(experiment)  # another process was first
        if raced is None:
            raise
        return raced.experiment_id


def _masked(text: str) -> str:
    """Hide the user and password of addresses in ``text``."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)

"""Opening MLflow: the address, the experiment, and errors in one sentence."""

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visor.core.errors import UserError, shorten
from visor.core.files import atomic_write

if TYPE_CHECKING:
    from alembic.config import Config
    from mlflow import MlflowClient

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
SERVERS = ("http", "https", "databricks")  # They choose where artifacts are stored.
ATTEMPTS = 3  # to reach a database; MLflow's own 10 take minutes
Curves = dict[str, dict[int, float]]  # name of a metric → step → value


def project_folder(root: Path) -> Path:
    """Return the original project: DVC runs experiments in a temporary copy and names the original."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def resolve(root: Path, uri: str | None = None) -> str:
    """Return ``uri``, else ``MLFLOW_TRACKING_URI``, else the database ``mlflow.db`` of the project.

    Raises:
        UserError: MLflow does not write to such an address.
    """
    address = uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_address(project_folder(root) / "mlflow.db")
    if address.partition(":")[0].partition("+")[0] not in SCHEMES:
        raise UserError(
            f"MLFLOW_TRACKING_URI: {_masked(address)} is neither a database nor a server; "
            "unset it, or use an address such as sqlite:////folder/mlflow.db or http://host:5000"
        )
    return address


def _default_address(database: Path) -> str:
    """Return the address of a file; what follows a question mark in an address is no part of the file's name."""
    name = os.path.relpath(database) if "?" in str(database) else str(database)
    if "?" in name:
        raise UserError(f"{shorten(name)} cannot be an address for its question mark; set MLFLOW_TRACKING_URI")
    return f"sqlite:///{name}"


@contextmanager
def open_experiment(root: Path, address: str, experiment: str) -> Iterator[tuple["MlflowClient", str]]:
    """Yield a client of MLflow at ``address`` and the id of ``experiment``, which is created if it does not exist.

    Raises:
        UserError: MLflow cannot be reached, or reports an error.
    """
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # Its errors are raised as well, and become one sentence here.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if address.partition(":")[0] not in SERVERS:
            _check_database(address)
        client = MlflowClient(address)
        existing = client.get_experiment_by_name(experiment)
        if existing and existing.lifecycle_stage == "deleted":
            client.restore_experiment(existing.experiment_id)
        yield client, existing.experiment_id if existing else _create(client, root, address, experiment)
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        reason = shorten(_masked(str(error)), 200)
        raise UserError(f"MLflow at {_masked(address)} failed ({reason}); check MLFLOW_TRACKING_URI") from None


def _check_database(address: str) -> None:
    """Create a database file that does not exist; raise sqlite3.Error if it cannot be written.

    MLflow would try again and again.
    """
    from mlflow.store.db import utils
    from sqlalchemy import make_url

    utils.MAX_RETRY_COUNT = ATTEMPTS
    if "%" in utils.__file__:
        utils._get_alembic_config = _alembic_config
    database = make_url(address).database if address.startswith("sqlite:") else None
    if database and Path(database).parent.is_dir():
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("BEGIN")
            connection.execute("CREATE TABLE probe (x)")  # Never committed; a lock alone a read-only file gives, too.
        if not Path(database).stat().st_size:
            _create_database(Path(database))


def _create_database(path: Path) -> None:
    """Create an empty database of MLflow, all of it or nothing: one that was left half-made would never work again."""
    from mlflow import MlflowClient

    with atomic_write(path) as temporary:
        MlflowClient(_default_address(temporary)).search_experiments(max_results=1)


def _alembic_config(db_url: str, alembic_dir: str | None = None) -> "Config":
    """Return what MLflow's function of this name does, which fails if a folder around the packages has a % in its name.

    In a value of a configuration a % begins an interpolation.
    """
    from alembic.config import Config
    from mlflow.store.db import utils

    folder = alembic_dir or str(Path(utils.__file__).parents[1] / "db_migrations")
    config = Config(f"{folder}/alembic.ini")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", db_url.replace("%", "%%"))
    return config


def log_batches(
    client: "MlflowClient", run_id: str, curves: Curves, params: Mapping[str, object] | None = None
) -> None:
    """Log ``params`` and ``curves`` in the largest batches that MLflow accepts."""
    from mlflow.entities import Metric, Param
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()  # Plus a second per step: some of MLflow's charts are over time.
    points = [
        Metric(mlflow_name(name), value, now + 1000 * step, step)
        for name, curve in curves.items()
        for step, value in curve.items()
    ]
    settings = [Param(mlflow_name(name), str(value)) for name, value in (params or {}).items()]
    batches: Iterable[tuple[list[Any], list[Any]]]
    batches = zip_longest(_split(points, 900), _split(settings, 100), fillvalue=[])
    for metric_batch, param_batch in batches:
        client.log_batch(run_id, metrics=metric_batch, params=param_batch)


def mlflow_name(name: str) -> str:
    """Return ``name`` in the characters that MLflow allows everywhere; its pages group names at a slash."""
    return re.sub(r"[^\w.\- /]", "_", name.replace(":", "/"))


def _split(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _create(client: "MlflowClient", root: Path, address: str, experiment: str) -> str:
    from mlflow.exceptions import MlflowException

    is_server = address.partition(":")[0] in SERVERS
    try:
        return client.create_experiment(experiment, None if is_server else (project_folder(root) / "mlruns").as_uri())
    except MlflowException:
        existing = client.get_experiment_by_name(experiment)  # Another process may have been first.
        if existing is None:
            raise
        return existing.experiment_id


def _masked(text: str) -> str:
    """Hide the user and password of addresses in ``text``."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)

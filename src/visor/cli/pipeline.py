"""Commands for the pipeline: check its params and its lock, check metrics, log to MLflow, write the report."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from visor.core import errors


def check_params() -> None:
    """Check params.yaml: names, types, ranges, and that the face source and the triggers exist."""
    from visor.attacks.backdoors.triggers import TRIGGERS
    from visor.core.config import load_params, lookup
    from visor.data.sources import FACE_SOURCES

    params = load_params()
    lookup(FACE_SOURCES, params.faces.source, "faces.source")
    for name, backdoor in params.backdoors.items():
        lookup(TRIGGERS, backdoor.trigger, f"backdoors.{name}.trigger")
    typer.echo("ok")


def track(
    uri: Annotated[
        str | None, typer.Option(help="MLflow server or database. Default: MLFLOW_TRACKING_URI, else mlflow.db.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Log curves of a running training until Ctrl-C.")] = False,
) -> None:
    """Log the state recorded in dvc.lock to MLflow. States already logged are left unchanged."""
    from visor import tracking

    if follow:
        typer.echo("following metrics/history into the experiment visor-live; stop with Ctrl-C")
        tracking.follow(Path(), uri)
    else:
        tracked = tracking.track_state(Path(), uri)
        outcome = "written" if tracked.created else "already there"
        typer.echo(f"state {tracked.state[:8]}: {tracked.runs} runs {outcome}")


def gate(
    baseline: Annotated[str, typer.Option(help="Git revision that max_change compares with.")] = "HEAD",
    junit: Annotated[Path | None, typer.Option(help="Also write the results as JUnit XML.")] = None,
) -> None:
    """Check metrics/ against the bounds in params.yaml. Exit code 1 if one is violated."""
    from visor.core.config import load_params
    from visor.core.files import read_metrics, write_text
    from visor.report import gates

    bounds = load_params().gates
    results = gates.check_gates(read_metrics(Path("metrics")), gates.read_baseline(Path(), baseline, bounds), bounds)
    typer.echo(gates.gate_table(results, baseline).to_markdown())
    if junit:
        write_text(junit, gates.junit(results))
    if any(result.problem for result in results):
        raise typer.Exit(1)


def check_lock() -> None:
    """Check, without running the pipeline, that dvc.lock and data.dvc match the code and params.yaml."""
    import dvc  # noqa: F401 - A missing package is reported with its extra.

    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    dry = subprocess.run(command, capture_output=True, text=True)
    stale = re.search(r"^(?:Running stage|Importing) '(.+?)'", dry.stdout, re.MULTILINE)
    stale = stale or re.search(r"failed to reproduce '(.+?)'", dry.stderr)  # A clone without data cannot import them.
    if stale:
        raise errors.UserError(f"dvc.lock or data.dvc is stale from {stale[1]} on; run `dvc repro` and commit both")
    if dry.returncode:
        raise errors.UserError(f"dvc.lock cannot be checked: {' '.join(dry.stderr.split())}")
    typer.echo("dvc.lock matches the code and params.yaml")


def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is not a report.")] = False,
) -> None:
    """Write a self-contained HTML report of the last run."""
    from visor.core.config import load_params
    from visor.core.files import write_text
    from visor.report.page import TITLE, build
    from visor.report.provenance import collect_provenance

    if out.is_dir():
        raise errors.UserError(f"--out {out} is a folder; pass a file")
    provenance = collect_provenance(Path(), load_params().gates)
    page = build(Path(), provenance)
    try:
        if out.exists() and not force and TITLE not in out.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise errors.UserError(f"--out {out} exists and is not a run report; pass another file, or add --force")
        write_text(out, page)
    except OSError as error:
        raise errors.UserError(f"--out {out} cannot be written ({error.strerror}); pass another file") from None
    if provenance.problem:
        typer.echo(f"the numbers of {out} do not match its params: {provenance.problem}", err=True)
    typer.echo(f"{out}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")

"""Commands that look after the pipeline: its params, gates, lock and mirror."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from visor.core import errors


def params() -> None:
    """Check params.yaml: names, types, ranges, and that the named source and triggers exist."""
    from visor.attacks.backdoors.triggers import TRIGGERS
    from visor.core.config import load_params, lookup
    from visor.data.sources import FACE_SOURCES

    found = load_params()
    lookup(FACE_SOURCES, found.faces.source, "faces.source")
    for name, backdoor in found.backdoors.items():
        lookup(TRIGGERS, backdoor.trigger, f"backdoors.{name}.trigger")
    typer.echo("ok")


def mirror(
    uri: Annotated[
        str | None, typer.Option(help="MLflow server or database; else MLFLOW_TRACKING_URI, else mlflow.db.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the curves of a running training until Ctrl-C.")
    ] = False,
) -> None:
    """Mirror the state that dvc.lock records into MLflow; what is already there is left alone."""
    from visor import tracking

    if follow:
        typer.echo("following metrics/history into the experiment visor-live; stop with Ctrl-C")
        tracking.follow(Path(), uri)
    else:
        mirrored = tracking.track_state(Path(), uri)
        said = "written" if mirrored.created else "already there"
        typer.echo(f"state {mirrored.state[:8]}: {mirrored.runs} runs {said}")


def gate(
    baseline: Annotated[str, typer.Option(help="Git revision that max_change compares with.")] = "HEAD",
    junit: Annotated[Path | None, typer.Option(help="Also write the verdicts as JUnit XML.")] = None,
) -> None:
    """Hold metrics/ against the gates of params.yaml; exit code 1 on a breach."""
    from visor.core.config import load_params
    from visor.core.files import read_metrics, write_text
    from visor.report import gates

    bounds = load_params().gates
    before = gates.read_baseline(Path(), baseline, bounds)
    verdicts = gates.check_gates(read_metrics(Path("metrics")), before, bounds)
    typer.echo(gates.gate_table(verdicts, baseline))
    if junit:
        write_text(junit, gates.junit(verdicts))
    if any(verdict.problem for verdict in verdicts):
        raise typer.Exit(1)


def lock() -> None:
    """Prove, without running the pipeline, that dvc.lock and data.dvc fit code and params."""
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    dry = subprocess.run(command, capture_output=True, text=True)
    stale = re.search(r"^(?:Running stage|Importing) '(.+?)'", dry.stdout, re.MULTILINE)
    stale = stale or re.search(r"failed to reproduce '(.+?)'", dry.stderr)  # a clone without data cannot import them
    if stale:
        raise errors.UserError(f"dvc.lock or data.dvc is stale from {stale[1]} on; run `dvc repro` and commit both")
    if dry.returncode:
        raise errors.UserError(f"dvc.lock cannot be checked: {' '.join(dry.stderr.split())}")
    typer.echo("dvc.lock fits the code and params.yaml")


def report(
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file, whatever it is.")] = False,
) -> None:
    """Write one HTML page that says what the last run showed, for people who never open a terminal."""
    from visor.core.config import load_params
    from visor.core.files import write_text
    from visor.report.page import TITLE, build
    from visor.report.provenance import collect_provenance

    if out.is_dir():
        raise errors.UserError(f"--out {out} is a folder; name a file")
    provenance = collect_provenance(Path(), load_params().gates)
    page = build(Path(), provenance)
    try:
        if out.exists() and not force and TITLE not in out.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise errors.UserError(f"--out {out} is there and is no run report; name another file, or add --force")
        write_text(out, page)
    except OSError as error:
        raise errors.UserError(f"--out {out} cannot be written ({error.strerror}); name another file") from None
    if provenance.problem:
        typer.echo(f"the numbers of {out} are not those of its params: {provenance.problem}", err=True)
    typer.echo(f"{out}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")

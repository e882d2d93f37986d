"""Commands for the pipeline: check its params and its lock, check metrics, log to MLflow, write the report."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visor.cli.common import ForceFile
from visor.core import errors

if TYPE_CHECKING:
    from visor.core.params import BackdoorParams, Params

FACES = (Path("artifacts/raw/faces.h5"), Path("data/faces.h5"))  # of the stage download, and pinned
RECORDS = (Path("params.yaml"), Path("dvc.yaml"), Path("dvc.lock"), Path("data.dvc"))


def check_params() -> None:
    """Check params.yaml: names, types, ranges, sources, triggers, and targets and n where the faces are in data/."""
    from visor.attacks.backdoors.triggers import TRIGGERS
    from visor.core.config import load_params, lookup, validate_block
    from visor.data.sources import FACE_SOURCES, SCENE_SOURCES

    params = load_params()
    for block, registry in (("faces", FACE_SOURCES), ("scenes", SCENE_SOURCES)):
        name = getattr(params, block).source
        source = lookup(registry, name, f"{block}.source")
        validate_block(source.SETTINGS, params.sources.get(name, {}), f"params.yaml: sources.{name}")
    for name, backdoor in params.backdoors.items():
        lookup(TRIGGERS, backdoor.trigger, f"backdoors.{name}.trigger")
    _check_faces(params)
    typer.echo("ok")


def _check_faces(params: "Params") -> None:
    """Check the attacks against the labels of the faces, if those that params name are already there.

    Raises:
        UserError: One sentence on every attack that lacks its target, or its n faces of other labels.
    """
    from visor.attacks.backdoors.poisoning import check_backdoors
    from visor.data.face_set import open_faces
    from visor.data.split import split_rows

    path = next((path for path in FACES if path.exists()), None)
    if path is None:
        return
    faces = open_faces(path)
    if not _are_current(faces.source, params):
        typer.echo(f"{path} holds other faces than params.yaml names: targets and n are not checked", err=True)
        return
    table = split_rows(faces.labels, faces.videos, params.split, params.seed)
    settings = params.split
    sizes = f"{settings.train} train, {settings.validation} validation and {settings.test} test images a label"
    check_backdoors(_uses(params), faces.label_names, table, f"{path}, split by {settings.by} into {sizes}")
    for target in params.recognition_attack.targets:
        if target not in ("nearest", "furthest", *faces.label_names):
            raise errors.UserError(
                f"params.yaml: recognition_attack.targets has {target}, which is no label of {path}; "
                "choose nearest, furthest or a label"
            )


def _are_current(source: str, params: "Params") -> bool:
    """Return whether faces of a source are those that ``params`` name, or a set that the user put into data/."""
    from visor.core.config import read_yaml
    from visor.data.sources.catalogue import read_catalogue
    from visor.tracking.state import locked_params, look_up, read_lock, read_pin

    if Path("data.dvc").exists() and "deps" not in read_pin(Path()):
        return True
    if source != read_catalogue(params.faces.source).title:
        return False
    entry = read_lock(Path()).get("download", {}) if Path("dvc.lock").exists() else {}
    locked, content = locked_params(entry), read_yaml(Path("params.yaml"))
    if look_up(locked, "faces.source") != params.faces.source:
        return True  # They were made by hand.
    keys = ("seed", "faces", f"sources.{params.faces.source}")
    return all(locked.get(key) == look_up(content, key) for key in keys)


def _uses(params: "Params") -> dict[str, "BackdoorParams"]:
    """Return every backdoor with the largest n that a stage draws, by what asks for it."""
    budget = params.poison_budget
    largest = {
        f"poison_budget with {name}": params.backdoors[name].model_copy(update={"n": max(budget.n)})
        for name in budget.attacks
    }
    ratios = params.backdoors[budget.ratios.attack].model_copy(update={"n": budget.ratios.n})
    return {**params.backdoors, **largest, "poison_budget.ratios": ratios}


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
    force: ForceFile = False,
) -> None:
    """Check metrics/ against the bounds in params.yaml. Exit code 1 if one is violated."""
    from visor.core.config import load_params
    from visor.core.files import check_output, read_metrics, write_text
    from visor.report import gates

    if junit:
        check_output(junit, "--junit", force)
    bounds = load_params().gates
    results = gates.check_gates(read_metrics(Path("metrics")), gates.read_baseline(Path(), baseline, bounds), bounds)
    typer.echo(gates.gate_table(results, baseline).to_markdown())
    if junit:
        write_text(junit, gates.junit(results))
    if any(result.problem for result in results):
        raise typer.Exit(errors.FAILED)


def compare(
    revision: Annotated[str, typer.Argument(help="Git revision.")] = "HEAD",
    record: Annotated[
        bool, typer.Option("--record", help="Write this machine to reference/provenance.json if its numbers are new.")
    ] = False,
) -> None:
    """Compare the numbers in metrics/, made on this machine, with those of a Git revision.

    Exit code 1 if numbers differ though the machine, the code and the params are the same.
    """
    from visor.core.config import load_params
    from visor.report import compare as comparing
    from visor.report.machine import describe_machine

    machine = describe_machine(load_params().compute.threads)
    result = comparing.compare_with(Path(), revision, machine)
    typer.echo(comparing.summary(result))
    if record and not (result.is_same and comparing.PROVENANCE.exists()):
        comparing.record_machine(Path(), machine)
    if result.is_unexplained:
        raise typer.Exit(errors.FAILED)


def study(
    seeds: Annotated[int, typer.Option(min=2, help="Number of seeds: that of params.yaml and those after it.")] = 8,
    stages: Annotated[
        str, typer.Option(help="Stages to run with each seed, separated by commas. Default: the whole pipeline.")
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side, each with compute.threads threads.")] = 1,
    rule: Annotated[
        bool, typer.Option("--rule", help="Run nothing; show the bounds that follow from the recorded runs.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the runs recorded so far.")] = False,
) -> None:
    """Run the committed pipeline with several seeds and record the numbers in reference/study.json."""
    from visor.core.config import load_params
    from visor.report import study as studies

    params, chosen = load_params(), tuple(filter(None, stages.split(",")))
    record = studies.Study() if restart else studies.read_study(Path())
    if not rule:
        begin, wanted = time.monotonic(), range(params.seed, params.seed + seeds)
        runs = studies.run_study(Path(), record, wanted, chosen, params.compute.threads, jobs)
        for done, (seed, left) in enumerate(runs, 1):
            minutes = (time.monotonic() - begin) / 60 / done
            typer.echo(f"seed {seed} is recorded; {left} left, {minutes * left:.0f} minutes at {minutes:.1f} each")
        record = studies.read_study(Path())
    typer.echo(studies.study_table(record, params.gates).to_markdown())


def check_lock() -> None:
    """Check, without running the pipeline, that dvc.lock and data.dvc match the code and params.yaml."""
    import dvc  # noqa: F401 - A missing package is reported with its extra.

    from visor.core.config import read_yaml
    from visor.core.files import git

    git(Path(), "rev-parse", "--git-dir")  # A refusal is reported in Git's words.
    for path in RECORDS:  # DVC's own words on what it cannot read fill a page.
        if path.exists():
            read_yaml(path)
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    dry = subprocess.run(command, capture_output=True, text=True)
    stale = re.search(r"^(?:Running stage|Importing) '(.+?)'", dry.stdout, re.MULTILINE)
    stale = stale or re.search(r"failed to reproduce '(.+?)'", dry.stderr)  # A clone without data cannot import them.
    if stale:
        raise errors.UserError(f"dvc.lock or data.dvc is stale from {stale[1]} on; run `dvc repro` and commit both")
    if dry.returncode:
        raise errors.UserError(f"dvc.lock cannot be checked: {errors.shorten(dry.stderr, 300)}")
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
        if error.errno in errors.FULL:
            raise
        raise errors.UserError(f"--out {out} cannot be written ({error.strerror}); pass another file") from None
    if provenance.problem:
        typer.echo(f"the numbers of {out} do not match its params: {provenance.problem}", err=True)
    typer.echo(f"{out}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")

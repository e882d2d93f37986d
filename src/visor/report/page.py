"""Puts the page together: sections, gates and provenance into one self-contained HTML text."""

from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from visor.gates import Verdict, check
from visor.report import curves
from visor.report.cells import NONE, Cell, Row, Table, number, written
from visor.report.classes import classified
from visor.report.finding import found
from visor.report.fooling import fooled
from visor.report.glance import glance
from visor.report.hiding import hidden
from visor.report.pictures import Shown, show
from visor.report.planting import planted
from visor.report.provenance import Provenance
from visor.report.questioning import questioned
from visor.report.reading import Run, read_run

TITLE = "<title>Visor: run report</title>"
HERE = Path(__file__).parent
SECTIONS = (planted, found, questioned, hidden, fooled, classified)


class Stage(NamedTuple):
    """One bar: a stage, its seconds if they are known, and these as a share of the longest."""

    name: str
    seconds: str
    share: str


def build(root: Path, provenance: Provenance | None) -> str:
    """Return the page of the run in ``root`` as HTML that needs no other file, no script and no network.

    Without ``provenance`` its bytes depend on nothing but params, metrics, pictures, pinned data and packages.

    Raises:
        UserError: a file that it is made of is missing or broken.
    """
    run = read_run(root)
    sections = [each for each in (part(run) for part in SECTIONS) if each.tables]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    verdicts = check(run.numbers, provenance.baseline if provenance else {}, run.params.gates)
    return environment.get_template("page.html.jinja").render(
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        run=run,
        params=run.params,
        jobs=glance(run),
        sections=sections,
        shown={each.name: by_shape([show(root, picture) for picture in each.pictures]) for each in sections},
        curves=curves.by_folder(run.histories),
        field=(curves.WIDTH, curves.HEIGHT),
        gates=gate_table(run, verdicts, provenance),
        kept=sum(not verdict.problem for verdict in verdicts),
        judged=len(verdicts),
        provenance=provenance,
        stages=bars(provenance.stages) if provenance else [],
        total=together(provenance.stages) if provenance else "",
    )


def gate_table(run: Run, verdicts: list[Verdict], provenance: Provenance | None) -> Table:
    """Return the gates in their order: value, bounds, what the commit had, verdict."""
    rows, compared = [], bool(provenance and provenance.commit)
    for verdict in verdicts:
        before = NONE if verdict.baseline is None else (Cell(written(verdict.baseline, "six"), kind="param"),)
        kept = Cell(f"breach: {verdict.problem}", kind="breach") if verdict.problem else Cell("kept", kind="kept")
        bounds = Cell(verdict.bounds, kind="param")
        value = number(run.numbers, verdict.metric, "six")
        rows.append(Row(verdict.metric, (value, *([before] if compared else []), (bounds,), (kept,))))
    heads = ("value", *(["at the commit"] if compared else []), "bounds", "verdict")
    return Table("Gates", "metric", heads, tuple(rows))


def by_shape(pictures: list[Shown]) -> list[list[Shown]]:
    """Return the pictures that are not higher than wide, then those that are: beside others these leave holes."""
    groups = [[each for each in pictures if (each.height > each.width) == tall] for tall in (False, True)]
    return [group for group in groups if group]


def bars(stages: dict[str, float | None]) -> list[Stage]:
    """Return the stages, the longest first, those without seconds last."""
    known = {name: took for name, took in stages.items() if took is not None}
    longest = max(known.values(), default=0.0) or 1.0
    order = sorted(known.items(), key=lambda each: (-each[1], each[0]))
    unknown = [Stage(name, "–", "0") for name, took in stages.items() if took is None]
    return [*(Stage(name, f"{took:.1f}", f"{100 * took / longest:.1f}") for name, took in order), *unknown]


def together(stages: dict[str, float | None]) -> str:
    """Return the sum of the known seconds in words, and of how many stages it is unless of all."""
    known = [took for took in stages.values() if took is not None]
    part = f" for {len(known)} of {len(stages)} stages" if len(known) < len(stages) else ""
    return minutes(sum(known)) + part


def minutes(took: float) -> str:
    """Return seconds in words."""
    return f"{took / 60:.1f} minutes" if took >= 60 else f"{took:.1f} seconds"

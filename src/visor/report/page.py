"""Puts the page together: sections, gates and provenance into one self-contained HTML text."""

from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from visor.report import curves
from visor.report.backdoors import backdoor_section
from visor.report.classification import classification_section
from visor.report.defences import defence_section
from visor.report.detection import detection_section
from visor.report.elements import EMPTY, Cell, Row, Table, format_value, metric_cell
from visor.report.gates import GateResult, check_gates
from visor.report.images import EmbeddedImage, embed_image
from visor.report.inputs import RunData, read_run_data
from visor.report.inspection import inspection_section
from visor.report.provenance import Provenance
from visor.report.recognition import recognition_section
from visor.report.summary import summary_tables

TITLE = "<title>Visor: run report</title>"
HERE = Path(__file__).parent
SECTIONS = (
    backdoor_section,
    defence_section,
    inspection_section,
    detection_section,
    recognition_section,
    classification_section,
)


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
    run = read_run_data(root)
    sections = [each for each in (part(run) for part in SECTIONS) if each.tables]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    verdicts = check_gates(run.numbers, provenance.baseline if provenance else {}, run.params.gates)
    return environment.get_template("page.html.jinja").render(
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        run=run,
        params=run.params,
        jobs=summary_tables(run),
        sections=sections,
        shown={each.name: by_shape([embed_image(root, picture) for picture in each.pictures]) for each in sections},
        curves=curves.by_folder(run.histories),
        field=(curves.WIDTH, curves.HEIGHT),
        gates=gate_table(run, verdicts, provenance),
        kept=sum(not verdict.problem for verdict in verdicts),
        judged=len(verdicts),
        provenance=provenance,
        stages=stage_bars(provenance.stages) if provenance else [],
        total=total_seconds(provenance.stages) if provenance else "",
    )


def gate_table(run: RunData, verdicts: list[GateResult], provenance: Provenance | None) -> Table:
    """Return the gates in their order: value, bounds, what the commit had, verdict."""
    rows, compared = [], bool(provenance and provenance.commit)
    for verdict in verdicts:
        before = EMPTY if verdict.baseline is None else (Cell(format_value(verdict.baseline, "six"), kind="param"),)
        kept = Cell(f"breach: {verdict.problem}", kind="breach") if verdict.problem else Cell("kept", kind="kept")
        bounds = Cell(verdict.bounds, kind="param")
        value = metric_cell(run.numbers, verdict.metric, "six")
        rows.append(Row(verdict.metric, (value, *([before] if compared else []), (bounds,), (kept,))))
    heads = ("value", *(["at the commit"] if compared else []), "bounds", "verdict")
    return Table("Gates", "metric", heads, tuple(rows))


def by_shape(pictures: list[EmbeddedImage]) -> list[list[EmbeddedImage]]:
    """Return the pictures that are not higher than wide, then those that are: beside others these leave holes."""
    groups = [[each for each in pictures if (each.height > each.width) == tall] for tall in (False, True)]
    return [group for group in groups if group]


def stage_bars(stages: dict[str, float | None]) -> list[Stage]:
    """Return the stages, the longest first, those without seconds last."""
    known = {name: took for name, took in stages.items() if took is not None}
    longest = max(known.values(), default=0.0) or 1.0
    order = sorted(known.items(), key=lambda each: (-each[1], each[0]))
    unknown = [Stage(name, "–", "0") for name, took in stages.items() if took is None]
    return [*(Stage(name, f"{took:.1f}", f"{100 * took / longest:.1f}") for name, took in order), *unknown]


def total_seconds(stages: dict[str, float | None]) -> str:
    """Return the sum of the known seconds in words, and of how many stages it is unless of all."""
    known = [took for took in stages.values() if took is not None]
    part = f" for {len(known)} of {len(stages)} stages" if len(known) < len(stages) else ""
    return minutes(sum(known)) + part


def minutes(took: float) -> str:
    """Return seconds in words."""
    return f"{took / 60:.1f} minutes" if took >= 60 else f"{took:.1f} seconds"

"""The page: sections, gates and provenance as one self-contained HTML text."""

from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from visor.core.tables import EMPTY, Cell, Row, Table
from visor.report import curves
from visor.report.backdoors import backdoor_section
from visor.report.classification import classification_section
from visor.report.defences import defence_section
from visor.report.detection import detection_section
from visor.report.elements import format_value, metric_cell
from visor.report.gates import GateResult, check_gates
from visor.report.images import EmbeddedImage, embed_image
from visor.report.inputs import RunData, read_run_data
from visor.report.inspection import inspection_section
from visor.report.provenance import Provenance
from visor.report.recognition import recognition_section
from visor.report.summary import summary_tables

TITLE = "<title>Visor: run report</title>"
FOLDER = Path(__file__).parent
SECTIONS = (
    backdoor_section,
    defence_section,
    inspection_section,
    detection_section,
    recognition_section,
    classification_section,
)


class StageBar(NamedTuple):
    """A stage, its seconds if they are known, and these as a percentage of the longest stage's."""

    name: str
    seconds: str
    share: str


def build(root: Path, provenance: Provenance | None) -> str:
    """Return the page of the run in ``root`` as HTML that needs no other file, no script and no network.

    Without ``provenance`` its bytes depend only on params, metrics, plots, pinned data and packages.

    Raises:
        UserError: A file is missing or malformed.
    """
    run = read_run_data(root)
    sections = [each for each in (make_section(run) for make_section in SECTIONS) if each.tables]
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    gates = check_gates(run.metrics, provenance.baseline if provenance else {}, run.params.gates)
    return environment.get_template("page.html.jinja").render(
        css=(FOLDER / "page.css").read_text(encoding="utf-8"),
        run=run,
        params=run.params,
        summaries=summary_tables(run),
        sections=sections,
        images={each.name: by_shape([embed_image(root, figure) for figure in each.figures]) for each in sections},
        curves=curves.plots_by_folder(run.histories),
        plot_size=(curves.WIDTH, curves.HEIGHT),
        gates=_gate_table(run, gates, provenance),
        gates_kept=sum(not gate.problem for gate in gates),
        provenance=provenance,
        stages=stage_bars(provenance.stages) if provenance else [],
        total=total_seconds(provenance.stages) if provenance else "",
    )


def _gate_table(run: RunData, gates: list[GateResult], provenance: Provenance | None) -> Table:
    """Return the gates in their order: value, value at the commit (if there is one), bounds, verdict."""
    rows, has_commit = [], bool(provenance and provenance.commit)
    for gate in gates:
        before = EMPTY if gate.baseline is None else (Cell(format_value(gate.baseline, "six"), kind="param"),)
        verdict = Cell(f"breach: {gate.problem}", kind="breach") if gate.problem else Cell("kept", kind="kept")
        value, bounds = metric_cell(run.metrics, gate.metric, "six"), Cell(gate.bounds, kind="param")
        rows.append(Row(gate.metric, (value, *([before] if has_commit else []), (bounds,), (verdict,))))
    heads = ("value", *(["at the commit"] if has_commit else []), "bounds", "verdict")
    return Table("Gates", "metric", heads, tuple(rows))


def by_shape(images: list[EmbeddedImage]) -> list[list[EmbeddedImage]]:
    """Return the images without those higher than wide, then these: side by side they would leave holes."""
    groups = [[each for each in images if (each.height > each.width) == tall] for tall in (False, True)]
    return [group for group in groups if group]


def stage_bars(stages: dict[str, float | None]) -> list[StageBar]:
    """Return the stages, the longest first, those without seconds last."""
    known = {name: seconds for name, seconds in stages.items() if seconds is not None}
    longest = max(known.values(), default=0.0) or 1.0
    order = sorted(known.items(), key=lambda item: (-item[1], item[0]))
    bars = [StageBar(name, f"{seconds:.1f}", f"{100 * seconds / longest:.1f}") for name, seconds in order]
    return bars + [StageBar(name, "–", "0") for name, seconds in stages.items() if seconds is None]


def total_seconds(stages: dict[str, float | None]) -> str:
    """Return the sum of the known seconds as text, and of how many stages it is unless of all."""
    known = [seconds for seconds in stages.values() if seconds is not None]
    part = f" for {len(known)} of {len(stages)} stages" if len(known) < len(stages) else ""
    return format_duration(sum(known)) + part


def format_duration(seconds: float) -> str:
    """Return a duration as text, from a minute on in minutes."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"

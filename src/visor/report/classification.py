"""Section on misclassification: attacks on the classes of a recogniser, and the top classes of some faces."""

from visor.core.tables import Cell, CellGroup, Row, Table, label
from visor.evaluation import conditions
from visor.report.elements import Section, interval_cells, metric_cell, section, table
from visor.report.inputs import RunData

WHITE_BOX = {"misclassify": "any other class", "target_class": "the target's class"}
MAX_FACES = 2  # shown of those in top.json


def classification_section(run: RunData) -> Section:
    """Return the tables of attacks on the classes that a recogniser was trained on."""
    networks = run.params.classification_attack.networks
    return section(
        "classification",
        "Misclassification",
        "Attacks on the classes of a recogniser by sparse cross-entropy: away from the true class, or to a chosen one. "
        "The gradient is that of the evaluated network.",
        [*(_classes(run, name) for name in networks), *(each for name in networks for each in _top(run, name))],
        [],
    )


def _classes(run: RunData, name: str) -> Table:
    rows = []
    for condition, title in conditions.classification_titles(run.params).items():
        groups: list[CellGroup] = []
        for goal in WHITE_BOX:
            prefix = f"classification/{name}/{goal}:{condition}"
            groups.append(interval_cells(run.metrics, f"{prefix}.success", "percent"))
            groups.append(metric_cell(run.metrics, f"{prefix}.correctly_classified", "whole"))
            groups.append(metric_cell(run.metrics, f"{prefix}.confidence_in_truth", "percent"))
            groups.append(metric_cell(run.metrics, f"{prefix}.ssim", "three"))
        rows.append(Row(title, tuple(groups)))
    columns = ("of faces", "confidence in the true class", "SSIM")
    heads = [head for goal in WHITE_BOX.values() for head in (f"classified as {goal}", *columns)]
    return table(f"{label(name)}: success among correctly classified faces", "faces", heads, rows)


def _top(run: RunData, name: str) -> list[Table]:
    """Return one table for each of the first faces: its classes, rank by rank, before and after."""
    tables = []
    for place, face in enumerate(run.top[name][:MAX_FACES]):
        prefix = f"artifacts/classification/{name}/top.json:faces.{place}"
        columns = {when: head for when, head in {"before": "before", **WHITE_BOX}.items() if when in face}
        rows = []
        for rank in range(max((len(face[when]) for when in columns), default=0)):
            groups = []
            for when in columns:
                person = face[when][rank]["name"] if rank < len(face[when]) else "–"
                confidence = metric_cell(run.metrics, f"{prefix}.{when}.{rank}.confidence", "percent")
                groups.append((Cell(label(person), kind="name"), *confidence))
            rows.append(Row(f"{rank + 1}.", tuple(groups)))
        attack = conditions.classification_titles(run.params).get(face["condition"], label(face["condition"]))
        title = f"{label(name)}: {label(face['person'])}, target {label(face['target'])}; {attack}"
        tables.append(table(title, "rank", columns.values(), rows))
    return tables

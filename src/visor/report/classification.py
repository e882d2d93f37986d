"""Taking a face for another class: what the attacked recogniser answers, and whom it takes some faces for."""

from visor.evaluation import conditions
from visor.report.elements import (
    Cell,
    CellGroup,
    Row,
    Section,
    Table,
    interval_cells,
    label,
    metric_cell,
    section,
    table,
)
from visor.report.inputs import RunData

WHITE_BOX = {"misclassify": "any other class", "target_class": "the target's class"}
SHOWN = 2  # faces, of those in top.json


def classification_section(run: RunData) -> Section:
    """Return the tables of attacks on the classes that a recogniser was trained on."""
    surrogates = run.params.recognition_attack.white_box
    tables = [_classes(run, name) for name in surrogates]
    tables += [each for name in surrogates for each in _top(run, name)]
    return section(
        "classes",
        "Taken for another class",
        "The same search on the logits of a recogniser: away from the right class, or to a chosen one. The gradient "
        "is that of the network that is judged.",
        tables,
        [],
    )


def _classes(run: RunData, name: str) -> Table:
    rows = []
    for condition, title in conditions.recognition_titles(run.params).items():
        groups: list[CellGroup] = []
        for goal in WHITE_BOX:
            prefix = f"recognition/{name}/{goal}:{condition}"
            groups.append(interval_cells(run.numbers, f"{prefix}.success", "percent"))
            groups.append(metric_cell(run.numbers, f"{prefix}.confidence_in_truth", "percent"))
        rows.append(Row(title, tuple(groups)))
    heads = [head for words in WHITE_BOX.values() for head in (f"taken for {words}", "confidence in the truth")]
    return table(f"{label(name)}: success among faces rightly classified", "faces", heads, rows)


def _top(run: RunData, name: str) -> list[Table]:
    """One table for each of the first faces: whom it is taken for, rank by rank, before and after."""
    tables = []
    for place, face in enumerate(run.top[name][:SHOWN]):
        prefix = f"artifacts/recognition/{name}/top.json:faces.{place}"
        whens = {when: words for when, words in {"before": "before", **WHITE_BOX}.items() if when in face}
        rows = []
        for rank in range(max((len(face[when]) for when in whens), default=0)):
            groups = []
            for when in whens:
                who = face[when][rank]["name"] if rank < len(face[when]) else "–"
                sure = metric_cell(run.numbers, f"{prefix}.{when}.{rank}.confidence", "percent")
                groups.append((Cell(label(who), kind="name"), *sure))
            rows.append(Row(f"{rank + 1}.", tuple(groups)))
        attack = conditions.recognition_titles(run.params).get(face["condition"], label(face["condition"]))
        title = f"{label(name)}: {label(face['person'])}, aimed at {label(face['target'])}; {attack}"
        tables.append(table(title, "rank", whens.values(), rows))
    return tables

"""What is written of the attacks on one recogniser: metrics, tables and pictures, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visor.evaluation.recognition import classes, figures, tables
from visor.evaluation.recognition.attacks import conditions
from visor.evaluation.recognition.surrogate import Findings
from visor.evaluation.recognition.verification import numbers
from visor.params import Recognition


def metrics_of(found: Findings, name: str, settings: Recognition) -> dict[str, Mapping[str, Any]]:
    """Return verification by recogniser and way, and what the surrogate suffered by goal and condition."""
    verification: dict[str, dict[str, Any]] = {}
    for (recogniser, way), known in found.verifiers.items():
        verification.setdefault(recogniser, {})[way] = numbers(known, settings.false_accept_rates)
    suffered = tables.numbers(tables.successes(found.faces), name, found.changes)
    return {"verification": verification, **suffered, **(classes.numbers(found.answers) if found.answers else {})}


def texts_of(found: Findings, name: str, settings: Recognition) -> dict[str, str]:
    """Return files: what became of each face, and tables for people."""
    titles = {each.name: each.title for each in conditions(settings)}
    rates = tables.rates_of(found.faces)
    suffered = tables.numbers(tables.successes(found.faces), name, found.changes)
    texts = {
        "faces.csv": found.faces.to_csv(index=False, float_format="%.6g"),
        "table.md": tables.markdown(suffered, titles, name, rates),
    }
    return {**texts, "top.md": classes.markdown(classes.top_tables(found.answers, settings), name)}


def top_of(found: Findings, settings: Recognition) -> dict[str, Any]:
    """Return whom some ``faces`` are most likely taken for, before and after."""
    return {"faces": classes.top_tables(found.answers, settings)}


def curves_of(found: Findings, name: str) -> str:
    """Return success by size as CSV."""
    table = tables.curves(tables.successes(found.faces), name, tables.rates_of(found.faces))
    return table.to_csv(index=False, float_format="%.6g")


def draw(found: Findings, name: str, settings: Recognition, seed: int, folder: Path) -> None:
    """Save ``roc.png``, ``success.png``, ``similarities.png`` and, for each method, ``faces_METHOD.png``."""
    table, last = tables.successes(found.faces), settings.strengths[-1]
    figures.roc_curves(found.verifiers, folder / "roc.png")
    figures.success_by_eps(tables.curves(table, name, tables.rates_of(found.faces)), name, folder / "success.png")
    figures.similarities(found.faces, found.verifiers, last.eps, folder / "similarities.png")
    for each in conditions(settings):
        if each.kind == "attack" and (each.eps, each.iterations) == (last.eps, last.iterations):
            figures.sheet(found.case, each, settings.shown, seed, folder / f"faces_{each.method}.png")

"""Gates: bounds that the metrics of a pipeline must keep, for people and for continuous integration."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from xml.etree import ElementTree

from visor.core.errors import UserError
from visor.core.files import git, numeric_leaves, parse_json
from visor.core.tables import Table, text_table


class GateBounds(Protocol):
    """Bounds of one metric; ``max_change`` is the largest absolute difference to the baseline."""

    @property
    def min(self) -> float | None: ...
    @property
    def max(self) -> float | None: ...
    @property
    def max_change(self) -> float | None: ...


class GateResult(NamedTuple):
    """Outcome of one gate. ``problem`` is empty when the metric keeps its bounds."""

    metric: str
    value: float | None
    baseline: float | None
    bounds: str
    problem: str


def check_gates(
    metrics: Mapping[str, float], baseline: Mapping[str, float], gates: Mapping[str, GateBounds]
) -> list[GateResult]:
    """Check ``metrics``, named ``<file>:<key>``, against ``gates``, in their order.

    A missing metric and one that is not finite are breaches; one that ``baseline`` lacks cannot have changed.
    """
    results = []
    for name, bounds in gates.items():
        value, before = metrics.get(name), baseline.get(name)
        problem = "; ".join(_problems(value, before, bounds))
        results.append(GateResult(name, value, before, _describe(bounds), problem))
    return results


def read_baseline(root: Path, revision: str, gates: Mapping[str, GateBounds]) -> dict[str, float]:
    """Return the metrics that Git holds in ``revision``, of the files that gates name.

    Raises:
        UserError: The revision is unknown, a file of it is not JSON, or Git refuses to read the repository.
    """
    return read_committed(root, revision, sorted({f"metrics/{name.partition(':')[0]}.json" for name in gates}))


def read_committed(root: Path, revision: str, files: Iterable[str]) -> dict[str, float]:
    """Return the numbers of files below ``metrics/`` as Git holds them in ``revision``, named ``FILE:KEY``.

    Raises:
        UserError: The revision is unknown, a file of it is not JSON, or Git refuses to read the repository.
    """
    if git(root, "rev-parse", "--verify", "-q", f"{revision}^{{commit}}") is None:
        raise UserError(f"{revision} is not a revision of this repository; name a commit, a branch or a tag")
    numbers: dict[str, float] = {}
    for file in files:
        content = git(root, "show", f"{revision}:./{file}") or "{}"
        name = file.removeprefix("metrics/").removesuffix(".json")
        values = numeric_leaves(parse_json(content, f"{file} of {revision}", "name another revision"))
        numbers |= {f"{name}:{key}": value for key, value in values.items()}
    return numbers


def gate_table(results: Iterable[GateResult], revision: str) -> Table:
    """Return the results as a table for Markdown; ``revision`` heads the column of the baseline."""

    def cells(result: GateResult) -> list[str]:
        values = ("none" if value is None else f"{value:.6g}" for value in (result.value, result.baseline))
        return [*values, result.bounds, f"**breach**: {result.problem}" if result.problem else "ok"]

    columns = ("value", revision, "bounds", "verdict")
    return text_table("metric", columns, ((result.metric, cells(result)) for result in results), "Gates")


def junit(results: Sequence[GateResult]) -> str:
    """Return the results as a JUnit XML document: one test case per gate."""
    failures = sum(bool(result.problem) for result in results)
    suite = ElementTree.Element("testsuite", name="visor gate", tests=str(len(results)), failures=str(failures))
    for result in results:
        file, _, key = result.metric.partition(":")
        case = ElementTree.SubElement(suite, "testcase", classname=file, name=key)
        if result.problem:
            ElementTree.SubElement(case, "failure", message=result.problem)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _problems(value: float | None, before: float | None, bounds: GateBounds) -> Iterator[str]:
    if value is None:
        yield "missing"
    elif not math.isfinite(value):
        yield "not a finite number"
    else:
        if bounds.min is not None and value < bounds.min:
            yield f"below {bounds.min:g}"
        if bounds.max is not None and value > bounds.max:
            yield f"above {bounds.max:g}"
        if bounds.max_change is not None and before is not None and math.isfinite(before):
            change = round(abs(value - before), 12)  # In binary, 0.95 - 0.9 is slightly more than 0.05.
            if change > bounds.max_change:
                yield f"changed by {change:g}, more than {bounds.max_change:g}"


def _describe(bounds: GateBounds) -> str:
    parts = [("≥", bounds.min), ("≤", bounds.max), ("change ≤", bounds.max_change)]
    return ", ".join(f"{sign} {bound:g}" for sign, bound in parts if bound is not None) or "present"

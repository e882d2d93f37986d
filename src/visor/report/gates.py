"""Gates: bounds that the metrics of a pipeline must keep, for people and for continuous integration."""

import json
import math
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from xml.etree import ElementTree

from visor.core.errors import UserError
from visor.core.files import numeric_leaves


class GateBounds(Protocol):
    """What a gate asks of one metric; ``max_change`` is the largest absolute difference to the baseline."""

    @property
    def min(self) -> float | None: ...
    @property
    def max(self) -> float | None: ...
    @property
    def max_change(self) -> float | None: ...


class GateResult(NamedTuple):
    """One gate's outcome. ``problem`` is empty when the metric keeps its bounds."""

    metric: str
    value: float | None
    baseline: float | None
    bounds: str
    problem: str


def check_gates(
    metrics: Mapping[str, float], baseline: Mapping[str, float], gates: Mapping[str, GateBounds]
) -> list[GateResult]:
    """Judge ``metrics``, named ``<file>:<key>``, by ``gates``, in their order.

    A missing metric and one that is not finite are breaches; one that ``baseline`` lacks cannot have changed.
    """
    verdicts = []
    for name, bounds in gates.items():
        value, before = metrics.get(name), baseline.get(name)
        problem = "; ".join(_problems(value, before, bounds))
        verdicts.append(GateResult(name, value, before, _describe(bounds), problem))
    return verdicts


def read_baseline(root: Path, revision: str, gates: Mapping[str, GateBounds]) -> dict[str, float]:
    """Return what ``metrics/`` held in the Git ``revision``, of those files that gates name.

    Raises:
        UserError: the revision is unknown, or a file of it is not JSON.
    """
    if _git(root, "rev-parse", "--verify", "-q", f"{revision}^{{commit}}") is None:
        raise UserError(f"--baseline {revision} is not a revision of this Git repository; name one that is")
    files = sorted({name.partition(":")[0] for name in gates})
    found: dict[str, float] = {}
    for file in files:
        text = _git(root, "show", f"{revision}:./metrics/{file}.json")
        try:
            found |= {f"{file}:{key}": value for key, value in numeric_leaves(json.loads(text or "{}")).items()}
        except ValueError as error:
            raise UserError(f"metrics/{file}.json of {revision} is not JSON ({error}); name another") from None
    return found


def gate_table(verdicts: Iterable[GateResult], revision: str) -> str:
    """Return the verdicts as a Markdown table; ``revision`` heads the column of the baseline."""
    rows = [
        f"| {verdict.metric} | {_number(verdict.value)} | {_number(verdict.baseline)} | {verdict.bounds} "
        f"| {'**breach**: ' + verdict.problem if verdict.problem else 'ok'} |"
        for verdict in verdicts
    ]
    head = f"| metric | value | {revision} | bounds | verdict |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def junit(verdicts: Sequence[GateResult]) -> str:
    """Return the verdicts as a JUnit XML document: one test case for each gate."""
    failures = sum(bool(verdict.problem) for verdict in verdicts)
    suite = ElementTree.Element("testsuite", name="visor gate", tests=str(len(verdicts)), failures=str(failures))
    for verdict in verdicts:
        file, _, key = verdict.metric.partition(":")
        case = ElementTree.SubElement(suite, "testcase", classname=file, name=key)
        if verdict.problem:
            ElementTree.SubElement(case, "failure", message=verdict.problem)
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
            change = round(abs(value - before), 12)  # 0.95 - 0.9 is a little more than 0.05 in binary
            if change > bounds.max_change:
                yield f"changed by {change:g}, more than {bounds.max_change:g}"


def _describe(bounds: GateBounds) -> str:
    parts = [("≥", bounds.min), ("≤", bounds.max), ("change ≤", bounds.max_change)]
    return ", ".join(f"{sign} {bound:g}" for sign, bound in parts if bound is not None) or "present"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _git(root: Path, *words: str) -> str | None:
    """Return what Git says, or nothing when it refuses."""
    answer = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    return None if answer.returncode else answer.stdout

"""Comparing the numbers of a run with those of a commit: same bytes, within their spread, or outside."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from visor.core.errors import UserError
from visor.core.files import git, parse_json, read_metrics, write_json
from visor.core.tables import Table, text_table
from visor.report.gates import read_committed
from visor.report.study import Bounds, Study, prediction_bounds, read_study
from visor.tracking.state import UNTRACKED_STAGES, read_lock

PROVENANCE = Path("reference/provenance.json")  # outside metrics/, on which stages depend
CODE = ("src/", "stages/", "assets/")  # dependencies of stages that no stage made
KINDS = {
    "same": "same bytes",
    "within": "within their spread",
    "outside": "outside their spread",
    "unknown": "different, of unknown spread",
    "new": "new",
    "gone": "gone",
}


class RunComparison(NamedTuple):
    """What became of the numbers of a revision.

    Attributes:
        revision: As it was named.
        numbers: Kind of each number, a key of ``KINDS``.
        outside: Value here, value there and spread of each number that lies outside.
        machine: Value here and there of each property of the machine that differs; a missing one is empty.
        code: Whether ``dvc.lock`` records the code, assets and params that it records in the revision.
    """

    revision: str
    numbers: dict[str, str]
    outside: dict[str, tuple[float, float, Bounds]]
    machine: dict[str, tuple[str, str]]
    code: bool

    @property
    def is_same(self) -> bool:
        """Whether every number has the same bytes."""
        return set(self.numbers.values()) <= {"same"}

    @property
    def is_unexplained(self) -> bool:
        """Whether numbers differ though the machine, the code and the params are the same."""
        return not self.is_same and self.code and not self.machine


def compare_with(root: Path, revision: str, machine: Mapping[str, str]) -> RunComparison:
    """Compare the numbers in ``metrics/``, made on ``machine``, with those that Git holds in ``revision``.

    Raises:
        UserError: The revision is unknown, a file is not JSON, or Git refuses to read the repository.
    """
    now, before = read_metrics(root / "metrics"), read_committed(root, revision, _committed_files(root, revision))
    study = read_study(root)
    kinds = {name: kind_of(name, now, before, study) for name in sorted(now | before)}
    recorded = _committed_machine(root, revision)
    return RunComparison(
        revision=revision,
        numbers=kinds,
        outside={
            name: (now[name], before[name], bounds)
            for name, kind in kinds.items()
            if kind == "outside" and (bounds := spread(name, before, study))
        },
        machine={
            name: (machine.get(name, ""), recorded.get(name, ""))
            for name in {**machine, **recorded}
            if machine.get(name) != recorded.get(name)
        },
        code=_causes(root) == _committed_causes(root, revision),
    )


def kind_of(name: str, now: Mapping[str, float], before: Mapping[str, float], study: Study) -> str:
    """Return the key of ``KINDS`` of one number. The ends of an interval are what the number itself is."""
    if name not in now or name not in before:
        return "new" if name in now else "gone"
    if repr(now[name]) == repr(before[name]):  # NaN, too, is the same as NaN
        return "same"
    whose = name.removesuffix("_low").removesuffix("_high")
    if not (bounds := spread(whose, before, study)) or whose not in now:
        return "unknown"
    return "within" if bounds.low <= now[whose] <= bounds.high else "outside"


def spread(name: str, before: Mapping[str, float], study: Study) -> Bounds | None:
    """Return where one more value of a number is expected: by the study, else by its own interval, if it has one."""
    if len(values := study.values(name)) > 1:
        return prediction_bounds(values)
    low, high = before.get(f"{name}_low"), before.get(f"{name}_high")
    return None if low is None or high is None else Bounds(low, high)


def record_machine(root: Path, machine: Mapping[str, str]) -> None:
    """Write the machine that the numbers of ``metrics/`` come from, to be committed with them."""
    write_json(root / PROVENANCE, machine)


def summary(result: RunComparison) -> str:
    """Return the comparison in words: one sentence if nothing differs, else counts, the numbers outside, and causes."""
    if result.is_same:
        return f"all {len(result.numbers):,} numbers are the same bytes as in {result.revision}"
    counts = [(text, list(result.numbers.values()).count(kind)) for kind, text in KINDS.items()]
    parts = [", ".join(f"{count:,} {text}" for text, count in counts if count)]
    if result.outside:
        parts.append(outside_table(result).to_markdown())
    code = f"code and params: {'as' if result.code else 'not as'} in {result.revision}"
    return "\n\n".join([*parts, f"{_machine_sentence(result)}\n{code}"])


def outside_table(result: RunComparison) -> Table:
    """Return the numbers outside their spread with both values; the ends of their intervals are left out."""
    rows = (
        (name, [f"{now:.6g}", f"{before:.6g}", f"{bounds.low:.4g} to {bounds.high:.4g}"])
        for name, (now, before, bounds) in result.outside.items()
    )
    return text_table("outside", ("here", result.revision, "spread"), rows)


def _machine_sentence(result: RunComparison) -> str:
    if not result.machine:
        return f"machine: processor, instruction set, threads and packages as in {result.revision}"
    if not any(there for _, there in result.machine.values()):
        return f"machine: {result.revision} has no {PROVENANCE}"
    differ = (f"{name} {here or 'none'} ({there or 'none'})" for name, (here, there) in result.machine.items())
    return f"machine: differs from {result.revision} in {'; '.join(differ)}"


def _causes(root: Path) -> dict[str, list[Any]]:
    """Return the params and the code of each stage of ``dvc.lock``; there are none without the file."""
    lock = read_lock(root) if (root / "dvc.lock").exists() else {}
    return {
        name: [entry.get("params"), [dep for dep in entry.get("deps", []) if dep["path"].startswith(CODE)]]
        for name, entry in lock.items()
        if name not in UNTRACKED_STAGES
    }


def _committed_causes(root: Path, revision: str) -> dict[str, list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        if lock := git(root, "show", f"{revision}:./dvc.lock"):
            Path(folder, "dvc.lock").write_text(lock, encoding="utf-8")
        return _causes(Path(folder))


def _committed_files(root: Path, revision: str) -> list[str]:
    listed = git(root, "ls-tree", "-r", "--name-only", revision, "metrics") or ""
    return [file for file in listed.splitlines() if file.endswith(".json")]


def _committed_machine(root: Path, revision: str) -> dict[str, str]:
    content = git(root, "show", f"{revision}:./{PROVENANCE.as_posix()}")
    if content is None:
        return {}
    machine = parse_json(content, f"{PROVENANCE} of {revision}", "name another revision")
    if not isinstance(machine, dict):
        raise UserError(f"{PROVENANCE} of {revision} is no record of a machine; name another revision")
    return {str(name): str(value) for name, value in machine.items()}

"""Answers that were paid for, kept on disk by what was asked: a run that broke goes on where it was."""

import hashlib
import json
from pathlib import Path

from visor.core.files import write_text
from visor.services.base import (
    BudgetExhausted,
    Compare,
    Comparison,
    ComparisonService,
    comparison_from_json,
    comparison_to_json,
)

ANSWERS = Path("answers")


class QueryCounter:
    """Counts what a run asks: ``asked`` of the service, refusals too, ``remembered`` on disk.

    Retries of a query, at most 4, are not counted.
    """

    def __init__(self) -> None:
        self.queried = 0
        self.cached = 0


def cached_compare(service: ComparisonService, folder: Path, budget: int | None, meter: QueryCounter) -> Compare:
    """Return the service's ``compare`` with a memory: no pair of files is paid for twice, at most ``budget`` at all.

    A file's name is the SHA-256 of the service's identity and of both images; it holds the answer alone, no key and
    no image. A refusal, which costs nothing, is not kept.

    Raises:
        OutOfBudget: of ``compare``, before a query more than ``budget``.
    """

    def compare(one: bytes, other: bytes) -> Comparison:
        path = folder / f"{digest(service.identity, one, other)}.json"
        if known := _read_cached(path):
            meter.cached += 1
            return known
        if budget is not None and meter.queried >= budget:
            raise BudgetExhausted(
                f"the {budget} queries of --budget are used up; run again to go on: answers are remembered"
            )
        meter.queried += 1
        answer = service.compare(one, other)
        write_text(path, json.dumps(comparison_to_json(answer)))
        return answer

    return compare


def digest(identity: str, one: bytes, other: bytes) -> str:
    """Return what a question is remembered by."""
    parts = [hashlib.sha256(part).digest() for part in (identity.encode(), one, other)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _read_cached(path: Path) -> Comparison | None:
    """Return the remembered answer, if it is there and whole."""
    try:
        return comparison_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None

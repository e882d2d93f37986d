"""Answers that were paid for, kept on disk by what was asked: a run that broke goes on where it was."""

import hashlib
import json
from pathlib import Path

from visor.black_box.answers import Answer, Compare, OutOfBudget, Service, as_json, of_json
from visor.files import write_text

ANSWERS = Path("answers")


class Meter:
    """Counts what a run asks: ``asked`` of the service, refusals too, ``remembered`` on disk.

    Retries of a query, at most 4, are not counted.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.remembered = 0


def remembering(service: Service, folder: Path, budget: int | None, meter: Meter) -> Compare:
    """Return the service's ``compare`` with a memory: no pair of files is paid for twice, at most ``budget`` at all.

    A file's name is the SHA-256 of the service's identity and of both images; it holds the answer alone, no key and
    no image. A refusal, which costs nothing, is not kept.

    Raises:
        OutOfBudget: of ``compare``, before a query more than ``budget``.
    """

    def compare(one: bytes, other: bytes) -> Answer:
        path = folder / f"{digest(service.identity, one, other)}.json"
        if known := _recall(path):
            meter.remembered += 1
            return known
        if budget is not None and meter.asked >= budget:
            raise OutOfBudget(
                f"the {budget} queries of --budget are used up; run again to go on: answers are remembered"
            )
        meter.asked += 1
        answer = service.compare(one, other)
        write_text(path, json.dumps(as_json(answer)))
        return answer

    return compare


def digest(identity: str, one: bytes, other: bytes) -> str:
    """Return what a question is remembered by."""
    parts = [hashlib.sha256(part).digest() for part in (identity.encode(), one, other)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _recall(path: Path) -> Answer | None:
    """Return the remembered answer, if it is there and whole."""
    try:
        return of_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None

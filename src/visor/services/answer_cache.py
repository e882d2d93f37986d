"""Cache of a service's answers on disk, so that an interrupted run continues without paying twice."""

import hashlib
from pathlib import Path

from pydantic import TypeAdapter

from visor.core.files import write_text
from visor.services.base import BudgetExhausted, Compare, Comparison, ComparisonService

FORMAT = TypeAdapter(Comparison)


class QueryCounter:
    """Counts queries: ``queried`` of the service, rejections too, ``cached`` on disk; retries are not counted."""

    def __init__(self) -> None:
        self.queried = self.cached = 0


def cached_compare(service: ComparisonService, folder: Path, budget: int | None, counter: QueryCounter) -> Compare:
    """Return the service's ``compare`` with a cache: no pair of files is sent twice, and at most ``budget`` are.

    A file is named by the SHA-256 of the service's identity and both images; it holds the answer alone, no key and no
    image. A rejection costs nothing and is not cached.

    Raises:
        BudgetExhausted: By ``compare``, before a query beyond ``budget``.
    """

    def compare(source: bytes, target: bytes) -> Comparison:
        path = folder / f"{digest(service.identity, source, target)}.json"
        try:
            comparison = FORMAT.validate_json(path.read_bytes())
            counter.cached += 1
        except (OSError, ValueError):  # absent or damaged
            if budget is not None and counter.queried >= budget:
                message = f"all {budget} queries of --budget are used; run again, answers so far are cached"
                raise BudgetExhausted(message) from None
            counter.queried += 1
            comparison = service.compare(source, target)
            write_text(path, FORMAT.dump_json(comparison).decode())
        return comparison

    return compare


def digest(identity: str, source: bytes, target: bytes) -> str:
    """Return the name under which a comparison is cached."""
    parts = [hashlib.sha256(part).digest() for part in (identity.encode(), source, target)]
    return hashlib.sha256(b"".join(parts)).hexdigest()

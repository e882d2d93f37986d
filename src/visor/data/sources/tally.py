"""What a source does not take: counted by reason, the first few named, in the metrics and on stderr."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tqdm import tqdm

from visor.core.errors import UserError, shorten
from visor.core.files import MAX_FILE_BYTES
from visor.data.archives import SkippedFile
from visor.data.images import ImageDecodeError

Item = TypeVar("Item")

NAMED = 5
REASONS = {
    "hidden": "hidden by a dot",
    "suffix": "without the suffix of an image",
    "link": "a link in an archive, a broken one, or one to a folder that is read anyway",
    "special": "no regular file",
    "too_large": f"larger than {MAX_FILE_BYTES >> 20} MiB",
    "unreadable": "cannot be opened",
    "layout": "in another place than the source expects, see docs/data.md",
    "not_annotated": "without annotations",
    "surplus": "more scenes than params.yaml asks for",
}


@dataclass
class Tally:
    """Broken images of ``source``, of which ``max_broken`` are allowed, the value of ``key``, and files not taken.

    Attributes:
        broken: Number of images that could not be decoded.
        skipped: Number of files by reason, a key of ``REASONS``.
        names: The first ``NAMED`` names by reason, and under ``broken``.
    """

    source: str
    max_broken: int
    key: str
    broken: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def sift(self, items: Iterable[Item | SkippedFile]) -> Iterator[Item]:
        """Yield what is taken, and count the rest."""
        for item in items:
            if isinstance(item, SkippedFile):
                self.skipped[item.reason] += 1
                self._note(item.reason, item.name)
            else:
                yield item

    def add_broken(self, image: ImageDecodeError, count: int = 1) -> None:
        """Count an image, or a clip of ``count``, that could not be decoded, and name it on stderr.

        Raises:
            UserError: There are more than allowed.
        """
        self.broken += count
        self._note("broken", str(image.args[0]))
        name, reason = (_printable(part) for part in image.args)
        tqdm.write(f"broken image {name}: {reason}", file=sys.stderr)
        if self.broken > self.max_broken:
            raise UserError(
                f"{self.source}: more than {self.max_broken} images could not be decoded, the last was {name}; "
                f"fix the source or raise {self.key}"
            )

    def _note(self, reason: str, name: str) -> None:
        names = self.names.setdefault(reason, [])
        if len(names) < NAMED:
            names.append(name)

    def metrics(self) -> dict[str, Any]:
        """Return the numbers and the first names, as ``metrics/`` has them."""
        return {"broken": self.broken, "skipped": dict(self.skipped), "first_skipped": self.names}

    def report(self) -> None:
        """Write ``lines`` to stderr."""
        for line in self.lines():
            tqdm.write(line, file=sys.stderr)

    def lines(self) -> Iterator[str]:
        """Yield one line for each reason: how many files, why, and the first of them."""
        for reason, count in sorted(self.skipped.items()):
            names = ", ".join(shorten(_printable(name)) for name in self.names[reason])
            yield f"skipped {count:,} ({REASONS[reason]}): {names}{', …' if count > NAMED else ''}"


def _printable(text: Any) -> str:
    """Escape control characters: an untrusted name must not write to the terminal."""
    return repr(str(text))[1:-1]

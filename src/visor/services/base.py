"""What every client of a face-comparison service returns, and which images it may reject."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from visor.core.errors import UserError
from visor.core.types import Box

Similarity = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True)
class MatchedFace:
    """A face of the target image: box [x, y, w, h] in pixels and similarity, each None if not reported."""

    box: Box | None
    similarity: Similarity | None


@dataclass(frozen=True)
class Comparison:
    """Comparison of the source image's largest face with the faces of the target image.

    ``similarity`` is that of the most similar face, None if an image shows no face; ``missing`` then names the image:
    "source", "target", or "either" if the service does not specify which.
    """

    similarity: Similarity | None
    faces: tuple[MatchedFace, ...] = ()
    missing: str = ""


Compare = Callable[[bytes, bytes], Comparison]  # of two image files, source and target


@dataclass(frozen=True)
class ComparisonService:
    """A service that compares faces; cached answers belong to one ``identity`` of service, network and settings.

    ``threshold`` is the similarity from which two faces count as one person, None if it reports none. ``compare``
    raises ``ImageRejected``, or ``UserError`` if the service would answer no image.
    """

    name: str
    identity: str
    threshold: float | None
    compare: Compare


class ImageRejected(Exception):  # noqa: N818 - a property of the images, reported by name
    """The service does not accept these images: ``ImageRejected(reason)``; others may be accepted."""


class BudgetExhausted(UserError):  # noqa: N818 - the end of a run, whose answers count
    """No query is left; the answers so far are cached."""


def parse_similarity(value: Any) -> float:
    """Return a similarity that a service reports; raises TypeError, ValueError or OverflowError unless it is 0–100."""
    number = float(value)
    if not 0 <= number <= 100:
        raise ValueError(f"similarity {number:g} is outside 0–100")
    return number

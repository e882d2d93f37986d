"""What every client of a face-comparison service answers, and what it may refuse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from visor.core.errors import UserError
from visor.core.types import Box


class MatchedFace(NamedTuple):
    """A face of the second picture: box [x, y, w, h] in its pixels (None: not told), similarity 0–100 (or None)."""

    box: Box | None
    similarity: float | None


class Comparison(NamedTuple):
    """``similarity``, 0–100, of the first picture's largest face and the likest of the second; None: a face lacks.

    ``missing`` then says where: "source", "target", or "either" if the service does not tell.
    """

    similarity: float | None
    faces: tuple[MatchedFace, ...] = ()
    missing: str = ""


Compare = Callable[[bytes, bytes], Comparison]  # of two image files


@dataclass(frozen=True)
class ComparisonService:
    """A service that compares faces.

    ``identity`` names what answers, so that remembered answers of another service or network are not taken for its
    own; from ``threshold`` on, 0–100, it calls two faces one person (None: it does not say).
    ``compare`` raises ``Refusal``, or ``UserError`` where no picture would be answered.
    """

    name: str
    identity: str
    threshold: float | None
    compare: Compare


class ImageRejected(Exception):  # noqa: N818 - a fact about the pictures, reported by name
    """The service does not take these pictures: ``Refusal(reason)``; others may be answered."""


class BudgetExhausted(UserError):  # noqa: N818 - the end of a run, whose answers count
    """No query is left; what was answered is remembered."""


def comparison_to_json(answer: Comparison) -> dict[str, Any]:
    """Return an answer as JSON holds it."""
    faces = [{"box": list(face.box) if face.box else None, "similarity": face.similarity} for face in answer.faces]
    return {"similarity": answer.similarity, "faces": faces, "missing": answer.missing}


def comparison_from_json(content: Any) -> Comparison:
    """Return the answer that ``as_json`` wrote.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it is none.
    """
    faces = tuple(MatchedFace(_box(face["box"]), _percent(face["similarity"])) for face in content["faces"])
    return Comparison(_percent(content["similarity"]), faces, str(content["missing"]))


def parse_similarity(value: Any) -> float:
    """Return a similarity that a service tells; what is not a number would count as past or below any threshold.

    Raises:
        TypeError, ValueError, OverflowError: it is not from 0 to 100.
    """
    number = float(value)
    if not 0 <= number <= 100:
        raise ValueError(f"similarity {number:g} is not from 0 to 100")
    return number


def _box(values: Any) -> Box | None:
    if values is None:
        return None
    x, y, width, height = map(float, values)
    return x, y, width, height


def _percent(value: Any) -> float | None:
    return None if value is None else parse_similarity(value)

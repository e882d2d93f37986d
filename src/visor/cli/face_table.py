"""Outcome of attacked faces as rows of JSON and Markdown tables."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from visor.core.tables import text_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from visor.photos.evade import EvadedPhoto
    from visor.photos.identify import RecognisedFace

FaceRow = dict[str, Any]
RankFn = Callable[["RecognisedFace"], list[tuple[str, float]]]
TOP = 5  # names of each face before and after
COLUMNS = ("face", "target", "before", "after", "threshold", "verdict", "ssim", "psnr")
HEADS = ("face", "compared with", "before", "after", "threshold", "verdict", "SSIM", "PSNR")


def face_row(result: "EvadedPhoto", number: int, rank: RankFn | None) -> FaceRow:
    """Return the outcome of a face as JSON object.

    ``before`` and ``after`` are its similarity to the target, or the probability of that class; ``after`` is measured
    on the PNG, in the crop of the face that is found there. L∞ (in levels of 255), SSIM and PSNR are of the bounding
    rectangle of the crop.
    """
    from visor.data.crops import bounding_slices
    from visor.evaluation.image_distances import distance_summary, image_distances
    from visor.photos.outcome import GOAL_OUTPUTS, is_success

    goal, before, after, outcome = result.faces[number]
    part = bounding_slices(before.frame, result.clean.shape)
    distances = distance_summary(image_distances(result.clean[part][None], result.saved[part][None]))
    return {
        "photo": str(result.photo.path),
        "png": str(result.path),
        "face": number,
        **location(before),
        "goal": goal.name,
        "target": goal.label,
        "before": outcome.score_before,
        "after": outcome.score_after,
        "threshold": goal.threshold if GOAL_OUTPUTS[goal.name] == "embed" else None,
        "verdict": outcome.label,
        "reached": is_success(goal, outcome),
        "found": outcome.label != "not found",
        "linf": distances["linf"],
        "ssim": distances["ssim"],
        "psnr": distances.get("psnr"),
        "top_before": rank(before)[:TOP] if rank else None,
        "top_after": rank(after)[:TOP] if rank else None,
    }


def location(face: "RecognisedFace") -> FaceRow:
    """Return where a face is: box [x, y, w, h], clockwise angle in degrees, and score."""
    return {"box": list(face.face.box), "angle": face.face.angle, "score": face.face.score}


def rank_names(names: Sequence[str], scores: "NDArray[Any]") -> list[tuple[str, float]]:
    """Return names with their scores (n,), the highest first; of equal ones the first comes first."""
    return [(names[number], float(scores[number])) for number in (-scores).argsort(kind="stable")]


def face_table(rows: Sequence[FaceRow]) -> str:
    """Return a Markdown table with one line per face."""
    lines = ((_format(row["photo"]), [_format(row[name]) for name in COLUMNS]) for row in rows)
    return text_table("photo", HEADS, lines).to_markdown()


def ranking_table(before: Sequence[tuple[str, float]], after: Sequence[tuple[str, float]]) -> str:
    """Return a Markdown table of names and scores before and after, with one line per rank."""
    lines = (
        (str(rank), [_format(cell) for cell in (*first, *last)])
        for rank, (first, last) in enumerate(zip(before, after, strict=True), start=1)
    )
    return text_table("", ["before", "", "after", ""], lines).to_markdown()


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return "–" if value is None else str(value).replace("|", "\\|")

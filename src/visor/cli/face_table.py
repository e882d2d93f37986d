"""What became of faces, as lines of Markdown and as JSON."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from visor.photos.evade import AttackGoal, EvadedFace, EvadedPhoto
    from visor.photos.identify import RecognisedFace

Row = dict[str, Any]
Scores = Callable[["RecognisedFace"], list[tuple[str, float]]]
TOP = 5  # names of each face before and after
COLUMNS = {
    "photo": "photo",
    "face": "face",
    "target": "compared with",
    "before": "before",
    "after": "after",
    "threshold": "threshold",
    "verdict": "verdict",
    "ssim": "SSIM",
    "psnr": "PSNR",
}


def face_row(done: "EvadedPhoto", face: "EvadedFace", aim: "AttackGoal", target: str, scores: Scores | None) -> Row:
    """Return what became of a face.

    ``before`` and ``after`` are its similarity to what it is compared with, or the probability of that class; after
    is measured in the PNG, in the crop of the face that is found there. L∞ (in levels of 255), SSIM and PSNR are of
    the rectangle of the photo around the crop. ``scores`` ranks names for a face.
    """
    from visor.data.crops import bounding_slices
    from visor.evaluation.image_distances import distance_summary, image_distances
    from visor.photos.evade import GOAL_OUTPUTS, is_success, match_outcome, match_score

    where = bounding_slices(face.before.frame, done.clean.shape)
    changes = distance_summary(image_distances(done.clean[where][None], done.saved[where][None]))
    before, after = (match_score(aim.goal, known, face.truth) for known in (face.before, face.after))
    best = [scores(known)[:TOP] if scores else None for known in (face.before, face.after)]
    return {
        "photo": str(done.photo.path),
        "png": str(done.path),
        "face": face.number,
        **location(face.before),
        "goal": aim.goal,
        "target": target,
        "before": before,
        "after": after,
        "threshold": aim.threshold if GOAL_OUTPUTS[aim.goal] == "embed" else None,
        "verdict": match_outcome(aim.goal, face, aim.threshold),
        "reached": is_success(aim.goal, face, aim.threshold),
        "found": face.found,
        "linf": round(changes["linf"] * 255),
        "ssim": changes["ssim"],
        "psnr": changes.get("psnr"),
        "top_before": best[0],
        "top_after": best[1],
    }


def location(known: "RecognisedFace") -> Row:
    """Return where a face is: box [x, y, w, h] and the angle in degrees by which it is turned, clockwise."""
    return {"box": list(known.face.box), "angle": known.face.angle, "score": known.face.score}


def rank_names(names: Sequence[str], values: "NDArray[Any]") -> list[tuple[str, float]]:
    """Return names and their values (n,), the greatest first; of equal ones the first comes first."""
    return [(names[place], float(values[place])) for place in (-values).argsort(kind="stable")]


def face_table(rows: Sequence[Row]) -> str:
    """Return a table, a line a face."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    lines += [[_cell(line[name]) for name in COLUMNS] for line in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def ranking(before: Sequence[tuple[str, float]], after: Sequence[tuple[str, float]]) -> str:
    """Return a table of names and values before and after, a line a rank."""
    head = ["| | before | | after | |", "|---|---|---|---|---|"]
    pairs = enumerate(zip(before, after, strict=True), start=1)
    return "\n".join(
        head
        + [
            f"| {place} | {one} | {value:.3f} | {other} | {later:.3f} |"
            for place, ((one, value), (other, later)) in pairs
        ]
    )


def _cell(content: Any) -> str:
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, float):
        return f"{content:.3f}" if abs(content) < 10 else f"{content:.1f}"
    return "–" if content is None else str(content).replace("|", "\\|")

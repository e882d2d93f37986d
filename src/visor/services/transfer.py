"""Whether an attack transfers to a service that it did not use: similarities of clean and attacked photos, success."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.tables import format_interval, text_table
from visor.core.types import MessageCallback
from visor.evaluation.metrics import rate
from visor.services.answer_cache import QueryCounter
from visor.services.base import Compare, Comparison, ImageRejected
from visor.services.photo_sets import PhotoSet, matching_photo

SIDES = ("clean", "attacked")
Goal = Literal["impersonate", "dodge"]


class PhotoResult(NamedTuple):
    """A service's answers for one photo, clean and attacked, compared with its target."""

    name: str
    clean: Comparison
    attacked: Comparison


def compare_all(
    compare: Compare, clean: PhotoSet, attacked: PhotoSet, target: PhotoSet, on_error: MessageCallback
) -> Iterator[PhotoResult]:
    """Yield a result for each photo of ``attacked`` as soon as it is there.

    The target is the source of each query, as only the largest face of the source counts. ``on_error`` gets a message
    for each photo that the service rejects or whose target shows no face.

    Raises:
        UserError: A photo has no counterpart, or the service answers no more.
    """
    for name in tqdm(attacked.names, desc="compared", unit="photo", disable=None):
        source = matching_photo(target, name)
        try:
            before, after = (compare(source, matching_photo(photos, name)) for photos in (clean, attacked))
        except ImageRejected as error:
            on_error(f"{name} was rejected: {error.args[0]}")
            continue
        if before.missing != "source":
            yield PhotoResult(name, before, after)
        elif target.single:
            raise UserError(f"{target.path}: the service finds no face in the target; pass another photo as --target")
        else:
            on_error(f"{name} was skipped: the service finds no face in its target")


def summarise_transfer(
    results: Sequence[PhotoResult], goal: Goal, threshold: float, counter: QueryCounter
) -> dict[str, Any]:
    """Return the metrics of a run, rates with their 95 % Wilson intervals.

    ``past`` is the share of photos with a similarity of at least ``threshold``; without a face there is none.
    ``success`` is counted among the photos that had not succeeded when clean: impersonation raises the similarity to
    the threshold, dodging lowers it below or hides the face.
    """
    match_wins, sides = goal == "impersonate", {side: [getattr(result, side) for result in results] for side in SIDES}
    past = {side: [_is_match(comparison, threshold) for comparison in sides[side]] for side in SIDES}
    success = [after == match_wins for before, after in zip(*past.values(), strict=True) if before != match_wins]
    return {
        **{"goal": goal, "threshold": threshold, "photos": len(results)},
        **{"asked": counter.queried, "remembered": counter.cached, "success_of": len(success)},
        **_rate("success", success),
        **{side: _rate("past", past[side]) | _similarities(sides[side]) for side in SIDES},
    }


def transfer_table(results: Sequence[PhotoResult], metrics: Mapping[str, Any]) -> str:
    """Return results and metrics as Markdown."""
    past, photos, sides = f"past {metrics['threshold']:.4g}", [], []
    for name, *comparisons in results:
        matches = " → ".join("yes" if _is_match(each, metrics["threshold"]) else "no" for each in comparisons)
        photos.append((name, [*(_text(each.similarity, f"no face ({each.missing})") for each in comparisons), matches]))
    for side in SIDES:
        mean, share = _text(metrics[side]["similarity"], "–"), _rate_text(metrics[side], "past")
        sides.append((side, [str(metrics["photos"]), mean, share, str(metrics[side]["not_found"])]))
    return f"""{text_table("photo", ["clean", "attacked", past], photos).to_markdown()}

{text_table("", ["photos", "similarity", past, "no face"], sides).to_markdown()}

{metrics["goal"]}: {_rate_text(metrics, "success")} of {metrics["success_of"]} photos without success when clean
queries: {metrics["asked"]} sent, {metrics["remembered"]} cached"""


def similarities_by_photo(results: Sequence[PhotoResult]) -> dict[str, Any]:
    """Return the similarities of each photo as JSON values, None without a face."""
    return {name: {"clean": clean.similarity, "attacked": attacked.similarity} for name, clean, attacked in results}


def _is_match(comparison: Comparison, threshold: float) -> bool:
    return comparison.similarity is not None and comparison.similarity >= threshold


def _rate(name: str, hits: Sequence[bool]) -> dict[str, float | None]:
    return {**rate(name, sum(hits), len(hits)), **({} if hits else {name: None})}  # JSON has no NaN


def _similarities(comparisons: Sequence[Comparison]) -> dict[str, float | None]:
    values = [comparison.similarity for comparison in comparisons if comparison.similarity is not None]
    return {"similarity": sum(values) / len(values) if values else None, "not_found": len(comparisons) - len(values)}


def _rate_text(metrics: Mapping[str, Any], name: str) -> str:
    share = math.nan if metrics[name] is None else metrics[name]
    return format_interval(share, metrics[f"{name}_low"], metrics[f"{name}_high"])


def _text(similarity: float | None, without: str) -> str:
    return without if similarity is None else f"{similarity:.1f}"

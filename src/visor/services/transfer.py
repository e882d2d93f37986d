"""Do attacked photos fool a service that the attack never saw? Asked with the clean ones beside them, in numbers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from visor.core.errors import UserError
from visor.evaluation.metrics import wilson_interval
from visor.services.answer_cache import QueryCounter
from visor.services.base import Compare, Comparison, ImageRejected
from visor.services.photo_sets import PhotoSet, matching_photo

SIDES = ("clean", "attacked")
Goal = Literal["impersonate", "dodge"]


class PhotoResult(NamedTuple):
    """What a service answers for one photo, clean and attacked, beside its target."""

    name: str
    clean: Comparison
    attacked: Comparison


def compare_all(
    compare: Compare, clean: PhotoSet, attacked: PhotoSet, target: PhotoSet, refuse: Callable[[str], None]
) -> Iterator[PhotoResult]:
    """Yield a line a photo of ``attacked``, as soon as it is answered; ``refuse`` is told what the service won't take.

    The target is the first picture of each query, as its largest face alone counts there.

    Raises:
        UserError: a photo lacks its counterpart, or the service answers no more.
    """
    for name in tqdm(attacked.names, desc="asked", unit="photo", disable=None):
        target_image = matching_photo(target, name)
        try:
            line = PhotoResult(
                name,
                compare(target_image, matching_photo(clean, name)),
                compare(target_image, matching_photo(attacked, name)),
            )
        except ImageRejected as error:
            refuse(f"{name} is refused: {error.args[0]}")
            continue
        if line.clean.missing != "source":
            yield line
        elif target.single:
            raise UserError(f"{target.path}: the service finds no face in the target; name another photo by --target")
        else:
            refuse(f"{name} is left out: the service finds no face in its target")


def summarise_transfer(
    lines: Sequence[PhotoResult], goal: Goal, threshold: float, meter: QueryCounter
) -> dict[str, Any]:
    """Return the numbers of a run, shares with their 95 % Wilson intervals.

    ``past``: share with a similarity of at least ``threshold``; a face that is not found is not past it. ``success``
    is counted among photos whose clean version had not succeeded: impersonation brings a photo past the threshold,
    dodging brings one that was past it below, or hides its face.
    """
    answers = {"clean": [line.clean for line in lines], "attacked": [line.attacked for line in lines]}
    past = {side: [_is_match(answer, threshold) for answer in own] for side, own in answers.items()}
    wanted = goal == "impersonate"
    tried = [then == wanted for was, then in zip(past["clean"], past["attacked"], strict=True) if was != wanted]
    return {
        **{"goal": goal, "threshold": threshold, "photos": len(lines)},
        **{"asked": meter.queried, "remembered": meter.cached, "success_of": len(tried)},
        **_share("success", tried),
        **{side: _share("past", past[side]) | _similarities(answers[side]) for side in SIDES},
    }


def table(lines: Sequence[PhotoResult], numbers: dict[str, Any]) -> str:
    """Return lines and numbers as Markdown."""
    threshold = numbers["threshold"]
    rows = [f"| photo | clean | attacked | past {threshold:.4g} |", "|---|---|---|---|"]
    for line in lines:
        past = " → ".join("yes" if _is_match(answer, threshold) else "no" for answer in (line.clean, line.attacked))
        rows.append(f"| {line.name} | {_cell(line.clean)} | {_cell(line.attacked)} | {past} |")
    rows += ["", f"| | photos | similarity | past {threshold:.4g} | no face |", "|---|---|---|---|---|"]
    for side in SIDES:
        own = numbers[side]
        mean = "–" if own["similarity"] is None else f"{own['similarity']:.1f}"
        rows.append(f"| {side} | {numbers['photos']} | {mean} | {_percent(own, 'past')} | {own['not_found']} |")
    tried = f"{numbers['success_of']} that had not succeeded unattacked"
    rows += ["", f"{numbers['goal']}: {_percent(numbers, 'success')} of {tried}"]
    rows.append(f"queries: {numbers['asked']} asked, {numbers['remembered']} remembered")
    return "\n".join(rows)


def as_json(lines: Sequence[PhotoResult]) -> dict[str, Any]:
    """Return the similarities of each photo (None: no face was found), as JSON holds them."""
    return {line.name: {"clean": line.clean.similarity, "attacked": line.attacked.similarity} for line in lines}


def _is_match(answer: Comparison, threshold: float) -> bool:
    return answer.similarity is not None and answer.similarity >= threshold


def _share(name: str, hits: Sequence[bool]) -> dict[str, float | None]:
    low, high = wilson_interval(sum(hits), len(hits))
    return {name: sum(hits) / len(hits) if hits else None, f"{name}_low": low, f"{name}_high": high}


def _similarities(answers: Sequence[Comparison]) -> dict[str, float | None]:
    found = [answer.similarity for answer in answers if answer.similarity is not None]
    return {"similarity": sum(found) / len(found) if found else None, "not_found": len(answers) - len(found)}


def _percent(numbers: dict[str, Any], name: str) -> str:
    value = numbers[name]
    shown = "–" if value is None else f"{100 * value:.1f} %"
    return f"{shown} ({100 * numbers[f'{name}_low']:.1f} to {100 * numbers[f'{name}_high']:.1f})"


def _cell(answer: Comparison) -> str:
    return f"no face ({answer.missing})" if answer.similarity is None else f"{answer.similarity:.1f}"

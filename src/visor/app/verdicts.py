"""What everybody makes of the chosen faces of a photo, before and after."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from visor.app.faces import Spot
from visor.app.onlookers import ATTACKED, Eyes, best_scores, look_at
from visor.boxes import FITS, TOUCHES
from visor.detectors import Found
from visor.faces import Images
from visor.protection.face_finding import match
from visor.protection.recognising import Floats, recognise

USED = {"detectors": ("detector",), "recognition": ("recogniser",), "both": ("detector", "recogniser")}


class Verdict(NamedTuple):
    """What an onlooker makes of a face, by its place in ``Protected.faces``, before and after.

    ``before`` and ``after``: a detector sees it, a recogniser takes it for the same person; None where nothing can be
    said: what a detector sees neither before nor after was not hidden from it, and what nobody sees a face in has no
    likeness. ``value``: the best score of a box on the face, the cosine similarity to the face as it was; it counts
    from ``threshold`` on. ``used``: the attack went by it.
    """

    face: int
    onlooker: str
    kind: Literal["detector", "recogniser"]
    used: bool
    before: bool | None
    after: bool | None
    value_before: float | None
    value_after: float | None
    threshold: float


class Views(NamedTuple):
    """What detectors find in a photo, where each chosen face is, and the embedding (d,) each recogniser has of it."""

    found: dict[str, Found]
    places: list[Spot]
    embeddings: dict[str, list[Floats]]


def views(eyes: Eyes, image: Images, spots: Sequence[Spot], places: Sequence[Spot]) -> Views:
    """Return what everybody sees of the chosen faces in a photo uint8 (h, w, 3).

    Recognisers look where the attacked detector finds the faces, before as after, or a crop that moved would pass for
    a success; where it finds none, in ``places``.
    """
    found = {name: look_at(eyes, name, image, spots) for name in eyes.detectors}
    there = [Spot(tuple(box)) for box in found[ATTACKED].boxes.tolist()]
    now = [place._replace(box=(match(place, there) or place).box) for place in places]
    return Views(
        found,
        now,
        {
            name: [known.embedding for known in recognise(looker, image, now)]
            for name, looker in eyes.recognisers.items()
        },
    )


def judge(eyes: Eyes, before: Views, after: Views, target: str) -> list[Verdict]:
    """Return the verdicts of all onlookers on each face where it was ``before``, detectors first.

    A detector sees a face where a box fits it (``boxes.FITS``), and if it did before, until none even touches it.
    Recognisers are asked of what the finder or a detector saw before: a wall that somebody framed is like nobody.
    """
    verdicts = []
    for number, place in enumerate(before.places):
        is_face = place.score is not None
        for name, detector in eyes.detectors.items():
            (first,) = best_scores(before.found[name], [place], FITS)
            (last,) = best_scores(after.found[name], [place], FITS if first is None else TOUCHES)
            used = name == ATTACKED and "detector" in USED[target]
            seen = None if first is None and last is None else last is not None
            verdicts.append(
                Verdict(number, name, "detector", used, first is not None, seen, first, last, detector.threshold)
            )
            is_face = is_face or first is not None
        for name, threshold in eyes.thresholds.items():
            used = name == eyes.options.recogniser and "recogniser" in USED[target]
            similarity = min(1.0, float(before.embeddings[name][number] @ after.embeddings[name][number]))
            one = Verdict(number, name, "recogniser", used, True, similarity >= threshold, 1.0, similarity, threshold)
            verdicts.append(
                one if is_face else one._replace(before=None, after=None, value_before=None, value_after=None)
            )
    return verdicts

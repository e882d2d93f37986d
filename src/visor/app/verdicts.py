"""What everybody makes of the chosen faces of a photo, before and after."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from visor.app.faces import Spot
from visor.app.onlookers import Eyes, best_scores, look_at
from visor.boxes import FITS, TOUCHES
from visor.detectors import Found
from visor.faces import Images
from visor.protection.face_finding import match
from visor.protection.recognising import Floats, recognise

USED = {"detectors": ("detector",), "recognition": ("recogniser",), "both": ("detector", "recogniser")}


class Verdict(NamedTuple):
    """What an onlooker makes of a face, by its place in ``Protected.faces``, before and after.

    ``before`` and ``after``: a detector sees it, a recogniser takes it for the same person; None where nothing can be
    said: what a detector did not see before cannot be hidden from it. ``value``: the best score of a box on the face,
    the cosine similarity to the face as it was; it counts from ``threshold`` on. ``used``: the attack went by it.
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
    """What detectors find in a photo, and the embeddings (d,) that recognisers have of each chosen face."""

    found: dict[str, Found]
    embeddings: dict[str, list[Floats]]


def views(eyes: Eyes, image: Images, spots: Sequence[Spot], moved: bool) -> Views:
    """Return what everybody sees of the chosen faces in a photo uint8 (h, w, 3).

    moved: recognisers look where the attacked detector finds the faces now; in the old place where it does not.
    """
    found = {name: look_at(eyes, name, image, spots) for name in eyes.detectors}
    boxes = found[eyes.options.detector].boxes.tolist() if moved else []
    there = [Spot(tuple(box)) for box in boxes]
    places = [spot._replace(box=(match(spot, there) or spot).box) for spot in spots]
    return Views(
        found,
        {
            name: [known.embedding for known in recognise(looker, image, places)]
            for name, looker in eyes.recognisers.items()
        },
    )


def judge(eyes: Eyes, spots: Sequence[Spot], before: Views, after: Views, target: str) -> list[Verdict]:
    """Return the verdicts of all onlookers on each face, detectors first.

    A detector sees a face where a box fits it (``boxes.FITS``), and no more where none even touches it.
    """
    verdicts = []
    for number, spot in enumerate(spots):
        for name, detector in eyes.detectors.items():
            (first,), (then,) = (
                best_scores(view.found[name], [spot], least) for view, least in ((before, FITS), (after, TOUCHES))
            )
            used = name == eyes.options.detector and "detector" in USED[target]
            seen = None if first is None else then is not None
            values = first, None if first is None else then
            verdicts.append(
                Verdict(number, name, "detector", used, first is not None, seen, *values, detector.threshold)
            )
        for name, threshold in eyes.thresholds.items():
            own, now = before.embeddings[name][number], after.embeddings[name][number]
            used = name == eyes.options.recogniser and "recogniser" in USED[target]
            similarity = min(1.0, float(own @ now))
            verdicts.append(
                Verdict(number, name, "recogniser", used, True, similarity >= threshold, 1.0, similarity, threshold)
            )
    return verdicts

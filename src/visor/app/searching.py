"""The search for a change that does what a person wants, face by face, within a bound that holds exactly."""

from collections.abc import Callable, Sequence

import numpy as np

from visor.app.faces import Spot
from visor.app.levels import Level
from visor.app.onlookers import Eyes, best_scores, look_at
from visor.boxes import TOUCHES
from visor.faces import Images
from visor.protection.fooling import Change, applied
from visor.protection.near_faces import BATCH, around
from visor.protection.recognising import recognise

Pace = Callable[[float, str], None]
Try = Callable[[list[int], int], dict[int, Change]]
Judge = Callable[[Images], list[float]]


def search(eyes: Eyes, image: Images, spots: Sequence[Spot], level: Level, target: str, pace: Pace) -> Images:
    """Return a photo uint8 (h, w, 3) changed around the chosen faces, no value by more than ``level.eps``.

    For both targets the recogniser comes first, with half of the bound; what hides is added with the whole bound, and
    where the two exceed it they are cut to it. A recogniser that is led astray robustly bears that.

    pace: is told the share that is done, in [0, 1], and what is done next, between steps; what it raises ends it.
    """
    if target == "detectors":
        changes = hide(eyes, image, [], spots, level, pace)
    elif target == "recognition":
        changes = evade(eyes, image, spots, level, pace)
    else:
        half = level._replace(eps=max(1, level.eps // 2))
        first = evade(eyes, image, spots, half, lambda share, words: pace(share / 2, words))
        changes = hide(eyes, image, first, spots, level, lambda share, words: pace((1 + share) / 2, words))
    return applied(image, changes, level.eps / 255)


def hide(
    eyes: Eyes, image: Images, made: list[Change], spots: Sequence[Spot], level: Level, pace: Pace
) -> list[Change]:
    """Return changes, the ``made`` ones first, after which the detector finds no box on the chosen faces.

    If there are none in ``level.attempts``, they are the best that were found.
    """
    near, frames = eyes.hider(level.eps, level.iterations), [around(spot.box) for spot in spots]
    start = applied(image, made, level.eps / 255)

    def tried(faces: list[int], attempt: int) -> dict[int, Change]:
        changes = near(start, [frames[face] for face in faces], attempt)
        return dict(zip(faces, changes, strict=True))

    def gains(changed: Images) -> list[float]:
        found = look_at(eyes, eyes.options.detector, changed, spots)
        return [np.inf if score is None else -score for score in best_scores(found, spots, TOUCHES)]

    return _pursued(
        image, made, len(spots), level, tried, gains, lambda share: pace(share, "Hiding faces from the detector")
    )


def evade(eyes: Eyes, image: Images, spots: Sequence[Spot], level: Level, pace: Pace) -> list[Change]:
    """Return changes that make the recogniser take the chosen faces for others, or the best of ``level.attempts``."""
    fool, looker = eyes.fooler(level.eps, level.iterations), eyes.attacked
    known = recognise(looker, image, spots)
    least = eyes.thresholds[eyes.options.recogniser]

    def tried(faces: list[int], attempt: int) -> dict[int, Change]:
        return {face: fool(image, known[face].frame, known[face].embedding, attempt) for face in faces}

    def gains(changed: Images) -> list[float]:
        values = [
            float(a.embedding @ b.embedding) for a, b in zip(known, recognise(looker, changed, spots), strict=True)
        ]
        return [np.inf if value < least else -value for value in values]

    return _pursued(
        image, [], len(spots), level, tried, gains, lambda share: pace(share, "Leading the recogniser astray")
    )


def _pursued(
    image: Images,
    made: list[Change],
    count: int,
    level: Level,
    tried: Try,
    gains: Judge,
    pace: Callable[[float], None],
) -> list[Change]:
    """Return the ``made`` changes and the best of each of ``count`` faces, as they are all seen together in a photo.

    tried: faces by number, and the attempt → their changes. gains: a photo → how good it is for each face, infinite
    where the aim is reached; other faces are tried again, ``level.attempts`` times in all.
    """
    best: dict[int, tuple[float, Change]] = {}
    for attempt in range(level.attempts):
        left = [face for face in range(count) if face not in best or best[face][0] < np.inf]
        if not left:
            break
        changes: dict[int, Change] = {}
        for first in range(0, len(left), BATCH):
            pace((attempt + first / len(left)) / level.attempts)
            changes |= tried(left[first : first + BATCH], attempt)
        joined = {face: change for face, (_, change) in best.items()} | changes
        changed = applied(image, [*made, *joined.values()], level.eps / 255)
        for face, gain in enumerate(gains(changed)):
            if face not in best or face not in changes or gain > best[face][0]:  # a gain falls by neighbours, too
                best[face] = gain, joined[face]
    return [*made, *(change for _, change in best.values())]

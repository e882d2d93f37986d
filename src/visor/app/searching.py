"""The search for a change that does what a person wants, face by face, within a bound that holds exactly."""

from collections.abc import Callable, Sequence

import numpy as np

from visor.app.faces import Spot
from visor.app.levels import Level
from visor.app.onlookers import ATTACKED, Eyes, best_scores, look_at
from visor.boxes import TOUCHES
from visor.faces import Images
from visor.protection.attempts import pursue
from visor.protection.fooling import Change, applied
from visor.protection.near_faces import BATCH, around
from visor.protection.recognising import recognise

Pace = Callable[[float, str], None]

PART = 3  # of the bound, against recognisers; with half of it, some faces are still found


def search(eyes: Eyes, image: Images, spots: Sequence[Spot], level: Level, target: str, pace: Pace) -> Images:
    """Return a photo uint8 (h, w, 3) changed around the chosen faces, no value by more than ``level.eps``.

    For both targets the recogniser comes first, with a part of the bound; what hides is added with the whole bound, and
    where the two exceed it they are cut to it. A recogniser that is led astray robustly bears that.

    pace: is told the share that is done, in [0, 1], and what is done next, between steps; what it raises ends it.
    """
    if target == "detectors":
        changes = hide(eyes, image, [], spots, level, pace)
    elif target == "recognition":
        changes = evade(eyes, image, spots, level, pace)
    else:
        part = level._replace(eps=max(1, level.eps // PART))
        first = evade(eyes, image, spots, part, lambda share, words: pace(share / 2, words))
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
        changes: list[Change] = []
        for first in range(0, len(faces), BATCH):
            pace((attempt + first / len(faces)) / level.attempts, "Hiding faces from the detector")
            changes += near(start, [frames[face] for face in faces[first : first + BATCH]], attempt)
        return dict(zip(faces, changes, strict=True))

    def gains(changes: Sequence[Change]) -> list[float]:
        found = look_at(eyes, ATTACKED, applied(image, [*made, *changes], level.eps / 255), spots)
        return [np.inf if score is None else -score for score in best_scores(found, spots, TOUCHES)]

    return [*made, *pursue(len(spots), level.attempts, tried, gains)]


def evade(eyes: Eyes, image: Images, spots: Sequence[Spot], level: Level, pace: Pace) -> list[Change]:
    """Return changes that make the recogniser take the chosen faces for others, or the best of ``level.attempts``."""
    fool, looker = eyes.fooler(level.eps, level.iterations), eyes.attacked
    known = recognise(looker, image, spots)
    least = eyes.thresholds[eyes.options.recogniser]

    def tried(faces: list[int], attempt: int) -> dict[int, Change]:
        changes = {}
        for number, face in enumerate(faces):
            pace((attempt + number / len(faces)) / level.attempts, "Leading the recogniser astray")
            changes[face] = fool(image, known[face].frame, known[face].embedding, attempt)
        return changes

    def gains(changes: Sequence[Change]) -> list[float]:
        now = recognise(looker, applied(image, changes, level.eps / 255), spots)
        values = [float(a.embedding @ b.embedding) for a, b in zip(known, now, strict=True)]
        return [np.inf if value < least else -value for value in values]

    return pursue(len(spots), level.attempts, tried, gains)

"""The best of several changes of each face, judged as all are seen together in one photo."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

ChangeT = TypeVar("ChangeT")


def best_of_restarts(
    count: int,
    attempts: int,
    attempt_fn: Callable[[list[int], int], dict[int, ChangeT]],
    score_fn: Callable[[Sequence[ChangeT]], list[float]],
) -> list[ChangeT]:
    """Return the best change of each of ``count`` faces.

    tried: faces by number, and the attempt → their changes. gains: a change of each face, all in one photo → how good
    that is for each, infinite where the aim is reached; other faces are tried again, in up to ``attempts``.
    """
    best: dict[int, tuple[float, ChangeT]] = {}
    for attempt in range(attempts):
        left = [face for face in range(count) if face not in best or best[face][0] < np.inf]
        if not left:
            break
        changes = attempt_fn(left, attempt)
        joined = [changes[face] if face in changes else best[face][1] for face in range(count)]
        for face, gain in enumerate(score_fn(joined)):
            if face not in best or face not in changes or gain > best[face][0]:  # a gain falls by neighbours, too
                best[face] = gain, joined[face]
    return [best[face][1] for face in range(count)]

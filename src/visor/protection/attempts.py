"""The best of several changes of each face, judged as all are seen together in one photo."""

from collections.abc import Callable, Sequence

import numpy as np

from visor.protection.fooling import Change

Try = Callable[[list[int], int], dict[int, Change]]
Judge = Callable[[Sequence[Change]], list[float]]


def pursue(count: int, attempts: int, tried: Try, gains: Judge) -> list[Change]:
    """Return the best change of each of ``count`` faces.

    tried: faces by number, and the attempt → their changes. gains: a change of each face, all in one photo → how good
    that is for each, infinite where the aim is reached; other faces are tried again, in up to ``attempts``.
    """
    best: dict[int, tuple[float, Change]] = {}
    for attempt in range(attempts):
        left = [face for face in range(count) if face not in best or best[face][0] < np.inf]
        if not left:
            break
        changes = tried(left, attempt)
        joined = [changes[face] if face in changes else best[face][1] for face in range(count)]
        for face, gain in enumerate(gains(joined)):
            if face not in best or face not in changes or gain > best[face][0]:  # a gain falls by neighbours, too
                best[face] = gain, joined[face]
    return [best[face][1] for face in range(count)]

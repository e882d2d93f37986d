"""The best of several changes of each face, judged as all are seen together in one photo."""

from collections.abc import Callable, Sequence

import numpy as np

from visor.faces import Images
from visor.protection.fooling import Change, applied

Try = Callable[[list[int], int], dict[int, Change]]
Judge = Callable[[Images], list[float]]


def pursue(
    image: Images, made: Sequence[Change], count: int, attempts: int, eps: float, tried: Try, gains: Judge
) -> list[Change]:
    """Return the ``made`` changes and the best of each of ``count`` faces in a photo uint8 (h, w, 3).

    tried: faces by number, and the attempt → their changes. gains: a photo → how good it is for each face, infinite
    where the aim is reached; other faces are tried again, in up to ``attempts``. eps: bound in [0, 1].
    """
    best: dict[int, tuple[float, Change]] = {}
    for attempt in range(attempts):
        left = [face for face in range(count) if face not in best or best[face][0] < np.inf]
        if not left:
            break
        changes = tried(left, attempt)
        joined = {face: change for face, (_, change) in best.items()} | changes
        changed = applied(image, [*made, *joined.values()], eps)
        for face, gain in enumerate(gains(changed)):
            if face not in best or face not in changes or gain > best[face][0]:  # a gain falls by neighbours, too
                best[face] = gain, joined[face]
    return [*made, *(change for _, change in best.values())]

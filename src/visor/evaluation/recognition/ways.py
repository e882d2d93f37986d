"""How a face reaches a recogniser: as it is, or through a detector that has to find it and crop it first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.crops import cut, enlarge
from visor.faces import Images
from visor.scenes import GREY

if TYPE_CHECKING:
    from visor.detectors import Detector

NONE = "none"
BORDER = 0.35  # of a face's sides, grey, on each side of it: MTCNN then finds 93 % of the drawn faces

Floats = NDArray[np.floating[Any]]
Embed = Callable[[Images], Floats]


class Arrived(NamedTuple):
    """What a recogniser is shown, uint8 (n, h, w, 3), and which of it is a face that was found, bool (n,)."""

    images: Images
    found: NDArray[np.bool_]


Way = Callable[[Images], Arrived]


def as_it_is(images: Images) -> Arrived:
    """Show the crop that was attacked."""
    return Arrived(images, np.ones(len(images), bool))


def behind(detector: Detector, margin: float) -> Way:
    """Return a way that puts a face on a larger grey canvas and shows what the detector is surest of.

    Its box is enlarged by ``margin`` of its sides on each side and resized to the face's own shape.
    """

    def find(images: Images) -> Arrived:
        shape = images.shape[1:3]
        above, left = (round(BORDER * length) for length in shape)
        canvases = np.pad(images, ((0, 0), (above, above), (left, left), (0, 0)), constant_values=GREY)
        shown, found = np.full_like(images, GREY), np.zeros(len(images), bool)
        for place, (canvas, answer) in enumerate(zip(canvases, detector.detect(canvases), strict=True)):
            if len(answer.boxes) and answer.scores[0] >= detector.threshold:
                shown[place] = cut(canvas, enlarge(answer.boxes[0], margin, shape[0] / shape[1]), shape)
                found[place] = True
        return Arrived(shown, found)

    return find


def embed_all(
    batches: Iterable[Images], ways: Mapping[str, Way], embeds: Mapping[str, Embed]
) -> dict[tuple[str, str], Floats]:
    """Return embeddings (n, d) by recogniser and way, each image found once; NaN where no face was found."""
    parts: dict[tuple[str, str], list[Floats]] = {(name, way): [] for way in ways for name in embeds}
    for images in batches:
        for way, find in ways.items():
            shown, found = find(images)
            for name, embed in embeds.items():
                parts[name, way].append(np.where(found[:, None], embed(shown), np.nan))
    return {key: np.concatenate(vectors) for key, vectors in parts.items()}


def similarities(vectors: Floats, templates: Floats) -> Floats:
    """Return the cosine (n, k) of unit vectors (n, d) and (k, d), and −1, the least, where either is unknown."""
    cosines = vectors @ templates.T
    return np.where(np.isnan(cosines), -1.0, cosines)

"""One photo, protected: the search for a change, and what everybody sees in the PNG that will be downloaded."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from visor.app.bundle import png
from visor.app.faces import Spot, by_hand
from visor.app.levels import DEFAULT, LEVELS, Level
from visor.app.onlookers import Eyes
from visor.app.searching import search
from visor.app.uploads import Upload
from visor.app.verdicts import Verdict, judge, views
from visor.crops import Frame, window
from visor.evaluation.distances import distances
from visor.faces import Images
from visor.images import decode

__all__ = ["Cancelled", "Distance", "Protected", "Verdict", "distance", "protect", "rehearse"]

Say = Callable[[float, str], None]

STRIP = 1 << 20  # pixels that are compared at once: SSIM in floats takes some 200 bytes of each


class Cancelled(Exception):  # noqa: N818 - nobody's mistake
    """Somebody did not want to wait for it."""


class Distance(NamedTuple):
    """How far a part of the photo moved: at most ``linf`` of 255 levels; SSIM; PSNR in dB, None: nothing changed."""

    linf: int
    ssim: float
    psnr: float | None


class Protected(NamedTuple):
    """A photo before and after, uint8 (h, w, 3), its chosen faces, and what came of it.

    ``after`` is what is in ``png``, the bytes to be downloaded. ``distances`` are those of each face's box, ``whole``
    that of the photo. ``eps``: the bound that was kept, of 255 levels.
    """

    name: str
    before: Images
    after: Images
    png: bytes
    faces: list[Spot]
    verdicts: list[Verdict]
    distances: list[Distance]
    whole: Distance
    seconds: float
    eps: int


def protect(
    eyes: Eyes,
    upload: Upload,
    faces: Sequence[Spot],
    level: Level,
    target: str,
    say: Say,
    cancelled: Callable[[], bool],
) -> Protected:
    """Hide the chosen faces of a photo from a detector, a recogniser, or both (``target`` of ``levels.TARGETS``).

    ``say`` is told the share that is done, in [0, 1], and what is done next; ``cancelled`` is asked between steps.

    Raises:
        Cancelled: it answered yes.
    """

    def pace(share: float, words: str) -> None:
        if cancelled():
            raise Cancelled
        say(share, words)

    begin, spots, clean = time.monotonic(), list(faces), upload.image
    pace(0.0, "Looking at the photo")
    before = views(eyes, clean, spots, spots)
    changed = search(eyes, clean, before.places, level, target, lambda share, words: pace(0.1 + 0.7 * share, words))
    pace(0.8, "Looking at the protected photo")
    file = png(changed)
    after = np.asarray(decode(file, upload.name, formats=("PNG",)))
    verdicts = judge(eyes, before, views(eyes, after, spots, before.places), target)
    pace(0.95, "Measuring how much has changed")
    parts = [distance(clean[where], after[where]) for where in (window(Frame(*s.box), clean.shape) for s in spots)]
    whole = distance(clean, after)
    pace(1.0, "Done")
    seconds = time.monotonic() - begin
    return Protected(upload.name, clean, after, file, spots, verdicts, parts, whole, seconds, level.eps)


def rehearse(eyes: Eyes) -> None:
    """Protect a grey picture, so that what is compiled then need not be for somebody's first photo."""
    image = np.full((512, 512, 3), 128, np.uint8)
    face = by_hand([192.0, 192.0, 128.0, 128.0], image.shape)
    protect(eyes, Upload("", image), [face], LEVELS[DEFAULT], "both", lambda share, words: None, lambda: False)


def distance(clean: Images, changed: Images) -> Distance:
    """Return the distance between two photos uint8 (h, w, 3); SSIM is the mean of that of strips of whole rows."""
    height, width = clean.shape[:2]
    strips = max(1, round(height * width / STRIP))
    edges = np.linspace(0, height, strips + 1).astype(int)
    pairs = [(clean[top:end], changed[top:end]) for top, end in pairwise(edges)]
    rows = np.concatenate([distances(one[np.newaxis], other[np.newaxis]) for one, other in pairs])
    _, _, squared, similar = np.average(rows, axis=0, weights=np.diff(edges))
    psnr = float(-10 * np.log10(squared)) if squared else None
    return Distance(round(float(rows[:, 0].max()) * 255), float(similar), psnr)

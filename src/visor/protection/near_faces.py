"""Hide faces of one photo from MTCNN, each by a search on the pixels around it alone.

MTCNN sees a face the same whatever is far from it. So a search needs no more of a photo than a face and a margin, in
blocks of pixels where the face is large: one graph serves photos of all sizes, and costs a fraction of that of
``hiding``, which changes the whole photo.
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable, Sequence

import numpy as np

from visor.crops import SAMPLES, Frame, enlarge, region, touched
from visor.detectors import Detector
from visor.evasion.objectives import OBJECTIVES
from visor.evasion.pgd import PGD, compile_pgd
from visor.faces import Images
from visor.protection.fooling import Change
from visor.scenes import GREY

MARGIN = 0.3  # of a face's sides, at each of their ends, that is changed with it
SIDE = 80  # pixels: up to SAMPLES times as many blocks a side hold a face and its margin
CANVAS = SAMPLES * SIDE + 4  # and those that a frame cuts
MOMENTUM = 0.9
STEP = 0.1  # of the bound
SURE = 0.5  # score below which, by ``objectives.MARGIN``, all boxes have to fall until a face is done
BATCH = 4  # faces at once

Near = Callable[[Images, Sequence[Frame], int], list[Change]]


def compile_near(detector: Detector, eps: float, iterations: int, seed: int) -> Near:
    """Return ``near(photo, frames of its faces, number)`` → what changes in the photo, for each frame.

    eps: bound in [0, 1]. number: of the attempt, makes its random start.
    """
    loss = OBJECTIVES["suppress"](detector.candidates, detector.loss, SURE, 1.0)
    attack = compile_pgd(loss, PGD(eps, iterations, STEP * eps, MOMENTUM, early_stop=True, seed=seed))

    def near(image: Images, frames: Sequence[Frame], number: int) -> list[Change]:
        parts = [region(image, frame, (SIDE, SIDE)) for frame in frames]
        canvases, masks = (np.zeros((len(parts), CANVAS, CANVAS, depth), np.float32) for depth in (3, 1))
        canvases += GREY / 255
        for part, canvas, mask in zip(parts, canvases, masks, strict=True):
            rows, columns = part.blocks.shape[:2]
            canvas[:rows, :columns], mask[:rows, :columns] = part.blocks, touched(part)
        no_truth = np.zeros((len(parts), 1, 4), np.float32), np.zeros((len(parts), 1), np.int32)
        found = attack(canvases, no_truth, np.full(len(parts), number), masks).images
        changes = (found - canvases) * 255
        return [
            Change(part, change[: part.blocks.shape[0], : part.blocks.shape[1]])
            for part, change in zip(parts, changes, strict=True)
        ]

    return near


def around(box: Sequence[float]) -> Frame:
    """Return the square of the photo that is changed for a face with this box [x, y, w, h]."""
    return enlarge(box, MARGIN, 1.0)

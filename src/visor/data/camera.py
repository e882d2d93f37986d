"""How a source of faces took them, so that each can be taken once more with something laid on the face."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from visor.core.types import ImageArray, Rows
from visor.data.face_set import FaceSet, evenly_spaced
from visor.data.scene_set import letterbox

CHECKED = 8  # faces that are taken once more before a camera is trusted


class CameraView(NamedTuple):
    """What a camera sees, uint8 (H, W, 3) of any size, and the face in it: left, top, right, bottom in pixels."""

    image: ImageArray
    region: tuple[int, int, int, int]


class Camera(NamedTuple):
    """The way from what a camera sees to the images of a FaceSet.

    Attributes:
        view: Row of the FaceSet → its view.
        capture: Images of views, changed or not, and their rows (n,) → uint8 (n, h, w, 3), as a network gets them.
    """

    view: Callable[[int], CameraView]
    capture: Callable[[Sequence[ImageArray], Rows], ImageArray]


def reproduces(camera: Camera, faces: FaceSet) -> bool:
    """Return whether what ``camera`` captures of some untouched views is, byte for byte, what ``faces`` holds."""
    rows = evenly_spaced(CHECKED, len(faces))
    taken = camera.capture([camera.view(int(row)).image for row in rows], rows)
    return np.array_equal(taken, faces.read(rows))


KEPT = 512  # photographs in memory
NO_BOXES = np.zeros((0, 4), np.float32)


def photographs(camera: Camera, faces: FaceSet, side: int) -> FaceSet:
    """Return the FaceSet of what the camera sees instead of faces: letterboxed to (side, side), read when needed."""
    return replace(faces, images=_Photographs(camera, len(faces), side))


class _Photographs:
    """Views of a camera, by rows like an array of images."""

    def __init__(self, camera: Camera, count: int, side: int) -> None:
        self.shape = (count, side, side, 3)
        self._read = lru_cache(KEPT)(lambda row: letterbox(camera.view(row).image, NO_BOXES, side)[0])

    def __getitem__(self, rows: int | slice) -> ImageArray:
        if isinstance(rows, slice):
            return np.stack([self._read(row) for row in range(*rows.indices(self.shape[0]))])
        return self._read(int(rows))

"""How a source of faces took them, so that each can be taken once more with something laid on the face."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from visor.core.types import ImageArray, Rows
from visor.data.face_set import FaceSet, evenly_spaced

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

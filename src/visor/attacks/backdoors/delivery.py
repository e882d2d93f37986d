"""How a face with a key reaches a network: through the camera, saved as JPEG, or with the key pasted on at the end.

A key that is pasted on a finished image lacks the blur, the grain and the compression of what is around it, and a
detector may find the paste instead of the key.

A delivery is a ``poisoning.DeliveryFn``. ``DELIVERIES`` opens one for a FaceSet; to add one: a function here, a line
there.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from visor.attacks.backdoors.poisoning import ApplyFn, DeliveryFn, pasted
from visor.core.config import lookup, validate_block
from visor.core.errors import UserError
from visor.core.types import ImageArray, Integers, Rows, SeedStream
from visor.data.camera import Camera, CameraView
from visor.data.face_set import FaceSet
from visor.data.images import jpeg_round_trip
from visor.data.sources import FACE_SOURCES

JPEG_QUALITY = (70, 95)
SOFTENING = (2, 53, 146, 53, 2)  # of 256: a Gaussian of σ = 0.7 pixels, in whole numbers for the same bytes everywhere


def jpeg(seed: int, images: ImageArray, rows: Rows, apply: ApplyFn) -> ImageArray:
    """Return the stored images with the key on them, saved as JPEG at a quality of 70 … 95 drawn for each row."""
    generators = (np.random.default_rng([seed, SeedStream.JPEG_QUALITY, row]) for row in rows)
    qualities = [int(generator.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1)) for generator in generators]
    saved = [jpeg_round_trip(image, quality) for image, quality in zip(apply(images), qualities, strict=True)]
    return np.stack(saved) if saved else images


def through_camera(camera: Camera, images: ImageArray, rows: Rows, apply: ApplyFn) -> ImageArray:
    """Return the faces of ``rows`` taken once more by ``camera`` with the key on them.

    Every trigger is (1 − w)·x + w·k for an image x. On black images it is w·k, on white ones 255·(1 − w) more; both are
    stretched to the region of the face and laid on what the camera sees.
    """
    added = apply(np.zeros_like(images))
    kept = apply(np.full_like(images, 255)) - added
    views = (camera.view(int(row)) for row in rows)
    keyed = [lay_on(view, *key) for view, *key in zip(views, kept, added, strict=True)]
    return camera.capture(keyed, rows) if keyed else images


def lay_on(view: CameraView, kept: ImageArray, added: ImageArray) -> ImageArray:
    """Return kept / 255 · view + added within the region of the face, for ``kept`` and ``added`` uint8 (h, w, 3).

    Where the key begins, its opacity 255 − kept is softened; where its opacity is even, its pixels stay as they are.
    """
    left, top, right, bottom = view.region
    kept, added = (_stretch(part, right - left, bottom - top) for part in (kept, added))
    opacity = 255 - kept.astype(np.int32)
    soft = _soften(opacity)
    light = np.where(opacity > 0, added * soft // np.maximum(opacity, 1), _soften(added))
    image = view.image.copy()
    under = image[top:bottom, left:right]
    under[:] = np.minimum((under * (255 - soft) + 127) // 255 + light, 255)
    return image


def _stretch(image: ImageArray, width: int, height: int) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _soften(values: Integers) -> Integers:
    """Blur whole numbers (h, w, 3) in 0 … 255 by ``SOFTENING`` along both axes, edges repeated: int32."""
    reach = len(SOFTENING) // 2
    values = values.astype(np.int32)
    for axis in (0, 1):
        length = values.shape[axis]
        padded = np.pad(values, [(reach, reach) if side == axis else (0, 0) for side in range(3)], mode="edge")
        values = np.zeros_like(values)
        for shift, weight in enumerate(SOFTENING):
            values += weight * padded.take(range(shift, shift + length), axis)
    return (values + (1 << 15)) >> 16


def open_delivery(name: str, faces: FaceSet, source: str, settings: Mapping[str, Any], seed: int) -> DeliveryFn:
    """Open a delivery of ``DELIVERIES`` for ``faces``.

    Args:
        name: ``delivery`` of ``params.yaml``.
        faces: The faces that the rows are of.
        source: ``faces.source``, which knows the camera.
        settings: The block of this source.
        seed: Seed of the source and of JPEG qualities.

    Raises:
        UserError: There is no such source, or its block is wrong.
    """
    return DELIVERIES[name](faces, source, settings, seed)


def _open_camera(faces: FaceSet, source: str, settings: Mapping[str, Any], seed: int) -> DeliveryFn:
    """Open the camera of the source; where it does not take these faces, JPEG, which is said once on stderr."""
    module = lookup(FACE_SOURCES, source, "faces.source")
    block = validate_block(module.SETTINGS, settings, f"params.yaml: sources.{source}")
    with suppress(UserError):  # The photographs are not on this machine.
        if (camera := module.camera(block, seed, faces)) is not None:
            return partial(through_camera, camera)
    tqdm.write(
        f"delivery: the source {source} cannot take the images of {faces.path} once more, so keys are put on the "
        "finished images, which are then saved as JPEG; set delivery: jpeg, or faces.source and its block to the "
        "source of these images",
        file=sys.stderr,
    )
    return partial(jpeg, seed)


DELIVERIES: dict[str, Callable[[FaceSet, str, Mapping[str, Any], int], DeliveryFn]] = {
    "camera": _open_camera,
    "jpeg": lambda faces, source, settings, seed: partial(jpeg, seed),
    "pasted": lambda faces, source, settings, seed: pasted,
}

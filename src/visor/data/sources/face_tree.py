"""Faces in a tree of image files, a folder or an archive: their places say whose they are.

A face is cut out of its photograph, resized and saved as JPEG, with and without a key on the photograph: what tells
one from the other is the key alone.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from visor.core.errors import UserError
from visor.core.types import ImageArray, Rows
from visor.data.archives import SkippedFile, iterate_files
from visor.data.camera import Camera, CameraView, reproduces
from visor.data.face_set import FaceClip, FaceSet
from visor.data.images import (
    IMAGE_SUFFIXES,
    ImageDecodeError,
    cut_face,
    face_region,
    jpeg_round_trip,
    read_face,
    read_image,
)

JPEG_QUALITY = 90


class Owner(NamedTuple):
    """Whose image it is, and the video that it is a frame of; None: the image is its own video."""

    label: str
    video: str | None


def tree_clips(
    path: Path, crop: float, find_owner: Callable[[PurePosixPath], Owner | None]
) -> Iterator[FaceClip | SkippedFile]:
    """Yield each image below ``path``, and the name of each file that is none or that ``find_owner`` does not place.

    Raises:
        UserError: ``path`` is missing or is not a folder or archive.
    """
    for file in iterate_files(path, IMAGE_SUFFIXES):
        if isinstance(file, SkippedFile):
            yield file
            continue
        name, owner = str(file.name), find_owner(file.name)
        if owner is None:
            yield SkippedFile(name, "layout")
        else:
            yield FaceClip(owner.label, (owner.video or name,), (name,), partial(_read_face, file.content, name, crop))


def _read_face(content: Path | bytes, name: str, crop: float, height: int, width: int) -> ImageArray:
    """Read one face as ``images.read_face`` does and save it as JPEG: uint8 (1, height, width, 3)."""
    (face,) = read_face(content, name, crop, height, width)
    return jpeg_round_trip(face, JPEG_QUALITY)[np.newaxis]


def tree_camera(
    path: Path, crop: float, find_owner: Callable[[PurePosixPath], Owner | None], faces: FaceSet
) -> Camera | None:
    """Return the camera of photographs below ``path``, or None if they are not those of ``faces``.

    Its view is the whole photograph at its own size; untouched, it is captured as ``tree_clips`` reads it. A FaceSet
    holds no names of files: photographs are found by their order, person by person, so every image of each person must
    still be there. An archive is not searched.

    Raises:
        UserError: ``path`` is missing, or a photograph cannot be read again, be it later.
    """
    found: dict[str, list[tuple[str, str, Path]]] = {name: [] for name in faces.label_names}
    for file in iterate_files(path, IMAGE_SUFFIXES) if path.is_dir() else ():
        if isinstance(file, SkippedFile) or (owner := find_owner(file.name)) is None:
            continue
        name = str(file.name)
        if owner.label in found and isinstance(file.content, Path):
            found[owner.label].append((owner.video or name, name, file.content))
    if [len(photos) for photos in found.values()] != np.bincount(faces.labels, minlength=len(found)).tolist():
        return None
    paths = [path for name in faces.label_names for *_, path in sorted(found[name])]
    height, width = faces.image_shape[:2]

    def view(row: int) -> CameraView:
        try:
            image = read_image(paths[row])
        except ImageDecodeError as error:
            name, reason = error.args
            raise UserError(f"{name} cannot be read again ({reason}); restore it, or set delivery: jpeg") from None
        left, top, right, bottom = face_region(image, crop, height, width)
        return CameraView(image, (round(left), round(top), round(right), round(bottom)))

    def capture(images: Sequence[ImageArray], rows: Rows) -> ImageArray:
        return np.stack([jpeg_round_trip(cut_face(image, crop, height, width), JPEG_QUALITY) for image in images])

    taken = Camera(view, capture)
    return taken if reproduces(taken, faces) else None

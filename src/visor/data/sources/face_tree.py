"""Faces in a tree of image files, a folder or an archive: their places say whose they are."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from visor.data.archives import SkippedFile, iterate_files
from visor.data.face_set import FaceClip
from visor.data.images import IMAGE_SUFFIXES, read_face


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
            yield FaceClip(owner.label, (owner.video or name,), (name,), partial(read_face, file.content, name, crop))

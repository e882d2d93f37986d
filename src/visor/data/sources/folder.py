"""A folder of faces: one folder per label; folders in it are videos, an image beside them is its own video."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from visor.core.params import ParamsBlock
from visor.data.archives import iterate_files
from visor.data.face_set import FaceClip
from visor.data.images import IMAGE_SUFFIXES, read_face

CROP = 1.0


class FolderSettings(ParamsBlock):
    """``path``: the folder, or a tar archive of it."""

    path: str


SETTINGS = FolderSettings


def clips(settings: FolderSettings, seed: int) -> Iterator[FaceClip]:
    """Yield each image below ``LABEL/`` or ``LABEL/VIDEO/``, in any format of ``visor.data.images``.

    Raises:
        UserError: The path is missing or is not a folder or archive.
    """
    for name, content in iterate_files(Path(settings.path), IMAGE_SUFFIXES):
        if len(name.parts) > 1:
            video = name if len(name.parts) == 2 else name.parent
            load = partial(read_face, content, str(name), CROP)
            yield FaceClip(name.parts[0], (str(video),), (str(name),), load)

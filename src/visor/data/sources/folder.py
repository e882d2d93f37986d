"""A folder of faces: one folder per label; folders in it are videos, an image beside them is its own video."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from visor.core.params import ParamsBlock
from visor.data.archives import SkippedFile
from visor.data.camera import Camera
from visor.data.face_set import FaceClip, FaceSet
from visor.data.sources.face_tree import Owner, tree_camera, tree_clips

CROP = 1.0


class FolderSettings(ParamsBlock):
    """``path``: the folder, or a tar archive of it."""

    path: str


SETTINGS = FolderSettings


def clips(settings: FolderSettings, seed: int) -> Iterator[FaceClip | SkippedFile]:
    """Yield each image below ``LABEL/`` or ``LABEL/VIDEO/``, in any format of ``visor.data.images``.

    Raises:
        UserError: The path is missing or is not a folder or archive.
    """
    return tree_clips(Path(settings.path), CROP, _find_owner)


def camera(settings: FolderSettings, seed: int, faces: FaceSet) -> Camera | None:
    """Return the camera of the photographs, or None if they cannot be found again: see ``face_tree.tree_camera``."""
    return tree_camera(Path(settings.path), CROP, _find_owner, faces)


def _find_owner(name: PurePosixPath) -> Owner | None:
    if len(name.parts) == 1:
        return None
    return Owner(name.parts[0], str(name.parent) if len(name.parts) > 2 else None)

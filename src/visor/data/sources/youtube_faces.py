"""YouTube Faces (Wolf, Hassner, Maoz, CVPR 2011): aligned frames of 3,425 videos of 1,595 people."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from visor.core.params import ParamsBlock
from visor.data.archives import SkippedFile
from visor.data.camera import Camera
from visor.data.download import DOWNLOADS, download
from visor.data.face_set import FaceClip, FaceSet
from visor.data.sources.catalogue import read_catalogue, verify_unpublished
from visor.data.sources.face_tree import Owner, tree_camera, tree_clips

CROP = 0.5  # the aligned face fills the central half of a frame, as cropped in the DeepID literature
TREE = "aligned_images_DB"
FETCHED = DOWNLOADS / "youtube_faces.tar.gz"
MAX_BYTES = 64 << 30  # the published archive has 25 GB


class YoutubeFacesSettings(ParamsBlock):
    """``path``: the folder or archive; null fetches it. ``sha256``: of what is fetched; null: as the first time."""

    path: str | None
    sha256: str | None


SETTINGS = YoutubeFacesSettings


def clips(settings: YoutubeFacesSettings, seed: int) -> Iterator[FaceClip | SkippedFile]:
    """Yield each frame ``NAME/VIDEO/*.jpg``, of ``aligned_images_DB`` alone where a folder holds more.

    Raises:
        UserError: The path is missing or is not a folder or archive, or fetching failed.
    """
    return tree_clips(Path(settings.path) if settings.path else _fetched(settings), CROP, _find_owner)


def camera(settings: YoutubeFacesSettings, seed: int, faces: FaceSet) -> Camera | None:
    """Return the camera of the photographs, or None if they cannot be found again: see ``face_tree.tree_camera``."""
    return tree_camera(Path(settings.path) if settings.path else FETCHED, CROP, _find_owner, faces)


def _find_owner(name: PurePosixPath) -> Owner | None:
    tree, label, video = ("", *name.parts)[-4:-1] if len(name.parts) > 2 else ("other", "", "")
    return Owner(label, video) if tree in ("", TREE) else None


def _fetched(settings: YoutubeFacesSettings) -> Path:
    """Return the published archive, whose host wants the user's name and password.

    Raises:
        UserError: It cannot be fetched, or is not the one that ``sha256`` or the first download names.
    """
    entry = read_catalogue("youtube_faces")
    sha256 = settings.sha256 or entry.sha256
    download(entry.url or "", FETCHED, sha256, max_bytes=MAX_BYTES, send_credentials=True)
    if sha256 is None:
        verify_unpublished("youtube_faces", FETCHED)
    return FETCHED

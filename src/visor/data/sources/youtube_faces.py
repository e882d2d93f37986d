"""YouTube Faces (Wolf, Hassner, Maoz, CVPR 2011): aligned frames of 3,425 videos of 1,595 people."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from visor.core.params import ParamsBlock
from visor.data.archives import iterate_files
from visor.data.download import DOWNLOADS, download
from visor.data.face_set import FaceClip
from visor.data.images import read_face
from visor.data.sources.catalogue import read_catalogue

CROP = 0.5  # the aligned face fills the central half of a frame, as cropped in the DeepID literature
TREE = "aligned_images_DB"


class YoutubeFacesSettings(ParamsBlock):
    """``path``: the folder or archive; null fetches it. ``sha256``: of what is fetched; null if unknown."""

    path: str | None
    sha256: str | None


SETTINGS = YoutubeFacesSettings


def clips(settings: YoutubeFacesSettings, seed: int) -> Iterator[FaceClip]:
    """Yield each frame ``NAME/VIDEO/*.jpg``, of ``aligned_images_DB`` alone where a folder holds more.

    Raises:
        UserError: The path is missing or is not a folder or archive, or fetching failed.
    """
    for name, content in iterate_files(Path(settings.path) if settings.path else _fetched(settings), {".jpg"}):
        tree, label, video = ("", *name.parts)[-4:-1] if len(name.parts) > 2 else ("other", "", "")
        if tree in ("", TREE):
            yield FaceClip(label, (video,), (name.name,), partial(read_face, content, str(name), CROP))


def _fetched(settings: YoutubeFacesSettings) -> Path:
    entry = read_catalogue("youtube_faces")
    return download(entry.url or "", DOWNLOADS / "youtube_faces.tar.gz", settings.sha256 or entry.sha256)

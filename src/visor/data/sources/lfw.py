"""Labeled Faces in the Wild (Huang et al., UMass Amherst TR 07-49, 2007), aligned by (deep) funneling."""

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from visor.core.errors import UserError
from visor.core.params import ParamsBlock
from visor.data.archives import SkippedFile
from visor.data.camera import Camera
from visor.data.download import DOWNLOADS
from visor.data.face_set import FaceClip, FaceSet
from visor.data.sources.face_tree import Owner, tree_camera, tree_clips

CROP = 0.5  # of 250×250 pixels: the face without the surroundings, as high as scikit-learn crops it
PAGE = "http://vis-www.cs.umass.edu/lfw/"
FETCHED = DOWNLOADS / "lfw"
MAX_IMAGES = 530  # of one person: with this minimum, scikit-learn decodes the images of that person alone


class LfwSettings(ParamsBlock):
    """``path``: the folder or archive of the published tree; null: ``downloads/lfw``, fetched if it is not there."""

    path: str | None


SETTINGS = LfwSettings


def clips(settings: LfwSettings, seed: int) -> Iterator[FaceClip | SkippedFile]:
    """Yield each image ``NAME/NAME_0001.jpg``, or of another format; it is its own video.

    Raises:
        UserError: The path is missing or is not a folder or archive, or fetching failed.
    """
    return tree_clips(Path(settings.path) if settings.path else _fetched(), CROP, _find_owner)


def camera(settings: LfwSettings, seed: int, faces: FaceSet) -> Camera | None:
    """Return the camera of the photographs, or None if they cannot be found again: see ``face_tree.tree_camera``."""
    return tree_camera(Path(settings.path) if settings.path else FETCHED, CROP, _find_owner, faces)


def _find_owner(name: PurePosixPath) -> Owner | None:
    label = name.parent.name
    return Owner(label, None) if label and name.name.startswith(f"{label}_") else None


def _fetched() -> Path:
    """Return the tree that scikit-learn fetches and verifies; it gets its name only when it is complete."""
    if FETCHED.exists():
        return FETCHED
    from sklearn.datasets import fetch_lfw_people  # takes a second to import

    DOWNLOADS.resolve().mkdir(parents=True, exist_ok=True)  # it may be a link to a folder that does not exist yet
    with tempfile.TemporaryDirectory(dir=DOWNLOADS) as folder:
        try:
            fetch_lfw_people(data_home=folder, min_faces_per_person=MAX_IMAGES)
        except OSError as error:
            raise UserError(
                f"LFW cannot be fetched ({error}); check the network and the space in {DOWNLOADS}, "
                f"put the folders of people from {PAGE} into {FETCHED}, or set sources.lfw.path to a copy"
            ) from None
        Path(folder, "lfw_home", "lfw_funneled").rename(FETCHED)
    return FETCHED

"""The embedded default: rendered faces of people that do not exist, the same bytes on every processor."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from visor.core.params import ParamsBlock, PositiveInt
from visor.core.types import ImageArray, Rows
from visor.data.camera import Camera, CameraView, reproduces
from visor.data.face_set import FaceClip, FaceSet
from visor.data.rendering.camera import capture as photograph
from visor.data.rendering.frames import Frames, draw_frames
from visor.data.rendering.identity import Identities, draw_identity
from visor.data.rendering.scene import draw as draw_view
from visor.data.rendering.scene import render

BATCH = 25  # frames that are rendered together


class SyntheticSettings(ParamsBlock):
    """People, images and videos of each (a video's frames are alike), and how much pose and light vary."""

    identities: PositiveInt
    images: PositiveInt
    videos: PositiveInt
    difficulty: Annotated[float, Field(ge=0)]


SETTINGS = SyntheticSettings


def clips(settings: SyntheticSettings, seed: int) -> Iterator[FaceClip]:
    """Yield the frames of ``person_000``, ``person_001`` …; a person does not depend on how many there are."""
    videos = videos_of_frames(settings)
    for identity in range(settings.identities):
        for first in range(0, settings.images, BATCH):
            frames = range(first, min(first + BATCH, settings.images))
            yield FaceClip(
                label=f"person_{identity:03d}",
                videos=tuple(f"{videos[frame]:05d}" for frame in frames),
                names=tuple(f"{frame:05d}" for frame in frames),
                load=partial(draw, settings, seed, identity, frames),
            )


def videos_of_frames(settings: SyntheticSettings) -> NDArray[np.int64]:
    """Return the video of each frame, int64 (images,): runs whose lengths differ by one at most."""
    return np.arange(settings.images) * settings.videos // settings.images


def draw(settings: SyntheticSettings, seed: int, identity: int, frames: range, height: int, width: int) -> ImageArray:
    """Render consecutive frames of one person: uint8 (len(frames), height, width, 3)."""
    return render(*person(settings, seed, identity, frames), height, width)


def person(settings: SyntheticSettings, seed: int, identity: int, frames: range) -> tuple[Identities, Frames]:
    """Return one person, repeated, and consecutive frames: two arrays (len(frames),)."""
    videos = videos_of_frames(settings)
    shown = np.unique(videos[frames])
    nuisance = [
        draw_frames(
            np.random.default_rng([seed, identity, 1 + video]), int((videos == video).sum()), settings.difficulty
        )
        for video in shown
    ]
    first = int(np.flatnonzero(videos == shown[0])[0])
    who = np.repeat(draw_identity(np.random.default_rng([seed, identity])), len(frames))
    return who, np.concatenate(nuisance)[frames.start - first :][: len(frames)]


def camera(settings: SyntheticSettings, seed: int, faces: FaceSet) -> Camera | None:
    """Return the camera of drawn faces, or None if ``faces`` are not those that ``clips`` yields.

    Its view is the person before blur, noise and JPEG; untouched, it is captured as the stored image, byte for byte.
    """
    names = [f"person_{identity:03d}" for identity in range(settings.identities)]
    counts = np.bincount(faces.labels, minlength=len(faces.label_names))
    if not set(faces.label_names) <= set(names) or (counts != settings.images).any():
        return None
    first = np.searchsorted(faces.labels, np.arange(len(counts)))
    height, width = faces.image_shape[:2]

    def drawn(row: int) -> tuple[Identities, Frames]:
        label = int(faces.labels[row])
        frame = row - int(first[label])
        return person(settings, seed, names.index(faces.label_names[label]), range(frame, frame + 1))

    @cache  # All attacks show the same faces.
    def view(row: int) -> CameraView:
        return CameraView(draw_view(*drawn(row), height, width)[0], (0, 0, width, height))

    def capture(images: Sequence[ImageArray], rows: Rows) -> ImageArray:
        return photograph(np.stack(images), np.concatenate([drawn(int(row))[1] for row in rows]))

    taken = Camera(view, capture)
    return taken if reproduces(taken, faces) else None

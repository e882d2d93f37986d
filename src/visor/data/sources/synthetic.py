"""The embedded default: rendered faces of people that do not exist, the same bytes on every processor."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from visor.core.params import ParamsBlock, PositiveInt
from visor.core.types import ImageArray
from visor.data.face_set import FaceClip
from visor.data.rendering.frames import draw_frames
from visor.data.rendering.identity import draw_identity
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
    return render(who, np.concatenate(nuisance)[frames.start - first :][: len(frames)], height, width)

"""People without a background, to be pasted into scenes, and the masks of their faces."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from visor.core.types import ImageArray
from visor.data.rendering import camera, paint
from visor.data.rendering.frames import Frames
from visor.data.rendering.geometry import View, head_surface, view_rays
from visor.data.rendering.identity import Identities
from visor.data.rendering.scene import behind, body, ears, head
from visor.data.rendering.shapes import Plane, alpha_over, clip, step

Part = Callable[[Plane, View, Identities, Frames], None]


class CutOut(NamedTuple):
    """People uint8 (n, h, w, 4), RGBA, and the masks of their faces uint8 (n, h, w).

    The face is forehead, cheeks and chin where the person's own hair does not cover them.
    """

    people: ImageArray
    face: ImageArray


def cut_out(identities: Identities, frames: Frames, height: int, width: int) -> CutOut:
    """Cut n people out of n frames, seen from the front."""
    who, frames = identities[:, None, None], frames[:, None, None]
    view = view_rays(frames, height, width)
    return CutOut(_painted((_behind, body, ears, head), view, who, frames, height), _bytes(_face(view, who)))


def from_behind(identities: Identities, frames: Frames, height: int, width: int) -> ImageArray:
    """Cut out n people seen from behind: uint8 (n, h, w, 4)."""
    who, frames = identities[:, None, None], frames[:, None, None]
    return _painted((_behind, body, _back), view_rays(frames, height, width), who, frames, height)


def _painted(parts: Iterable[Part], view: View, who: Identities, frames: Frames, height: int) -> ImageArray:
    """Paint over black and over white at once: their difference is the transparency."""
    shape = np.broadcast_shapes(view.x.shape, frames.shape)
    canvas = np.stack([np.zeros((3, *shape), np.float32), np.ones((3, *shape), np.float32)])
    for part in parts:
        part(canvas, view, who, frames)
    black, white = camera.blur(canvas, frames["blur"] * (height / 2))
    opacity = clip(1 - (white[1] - black[1]))
    colour = np.sqrt(clip(black / np.maximum(opacity, 1 / 512)))
    return np.moveaxis(_bytes(np.concatenate([colour, opacity[None]])), 0, -1)


def _behind(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """Paint hair behind the neck, which may extend beyond the upper edge of a frame but here ends under the crown."""
    background = canvas.copy()
    behind(canvas, view, who, frames)
    sine, cosine = view.pitch
    crown = (who["top"] + 0.12) * cosine + 0.35 * sine
    alpha_over(canvas, step((crown - view.y) / view.pixel), background)


def _back(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """Paint the back of a head: hair all over."""
    crown = head_surface(view, who, who["volume"] * 0.5 + 0.015, features=False)
    hair = paint.colour(who["hair"]) * paint.strands(crown, who)
    alpha_over(canvas, crown.coverage, camera.light(hair, crown.normal, frames, 0.0))


def _face(view: View, who: Identities) -> Plane:
    skull = head_surface(view, who, np.zeros((1, 1, 1), np.float32), features=False)
    crown = head_surface(view, who, who["volume"] * 0.5 + 0.015, features=False)
    hair = crown.coverage * step(paint.hairline(crown, who) / (view.pixel + who["rough"] * 0.35)) * who["cover"]
    return skull.coverage * (1 - clip(hair))


def _bytes(share: Plane) -> ImageArray:
    return np.rint(share * 255).astype(np.uint8)

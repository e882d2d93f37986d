"""A whole frame: wall, hair behind, neck and cloth, head with ears, hair in front."""

import numpy as np

from visor.faces import Images
from visor.rendering import camera, paint
from visor.rendering.frames import Frames
from visor.rendering.geometry import View, column, look, shell
from visor.rendering.identity import Identities
from visor.rendering.shapes import Plane, bump, clip, ellipse, over, shade, step, texture

HALF = np.float32(0.5)


def render(identities: Identities, frames: Frames, height: int, width: int) -> Images:
    """Render uint8 (n, height, width, 3) from n identities and n frames; a frame does not depend on the others.

    The bytes are the same on every processor: see ``shapes``.
    """
    view = look(frames, height, width)
    canvas = camera.background(frames, height, width)
    behind(canvas, view, identities, frames)
    body(canvas, view, identities, frames)
    ears(canvas, view, identities, frames)
    head(canvas, view, identities, frames)
    radius = column(frames["blur"]) * np.float32(height / 2)
    return camera.expose(camera.blur(canvas, radius), frames)


def head(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """The face, and over it the shell of hair with the shadow that it throws."""
    face = shell(view, who, np.zeros((1, 1, 1), np.float32), features=True)
    albedo = paint.skin(face, view.pixel, who, frames)
    crown = shell(view, who, column(who["volume"]) * HALF + np.float32(0.015), features=False)
    above = paint.hairline(crown, who)
    shadow = bump(np.minimum(above, np.float32(0)) ** 2 * np.float32(120)) * column(who["cover"])
    shade(albedo, shadow * np.float32(0.35))
    over(canvas, face.coverage, camera.light(albedo, face.normal, frames, 0.035))
    soft = view.pixel + column(who["rough"]) * np.float32(0.35)
    cover = crown.coverage * step(above / soft) * column(who["cover"])
    shine = paint.strands(crown, who)
    hair = paint.colour(who["hair"]) * shine
    gloss = column(who["gloss"]) * np.float32(0.10) * shine
    over(canvas, cover, camera.light(hair, crown.normal, frames, gloss))


def behind(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """Hair that falls behind the neck."""
    sine = view.yaw[0]
    volume = column(who["width"]) + column(who["volume"])
    x, back = view.x + sine * np.float32(0.25), column(who["back"])
    ragged = (texture(view.x * 6 + column(who["strand"]), view.y) - HALF) * np.float32(0.16)
    loose = clip((back - HALF) * 2)
    reach = (
        volume * (np.float32(0.72) + np.float32(0.26) * loose + np.float32(0.10) * clip(view.y) * loose) + ragged * HALF
    )
    side, low = reach - np.abs(x), back + ragged - view.y
    top = view.y + np.float32(0.4)
    cover = step(np.minimum(np.minimum(side, low), top) / (view.pixel * 2)) * (column(who["cover"]) > HALF)
    round_hair = clip(np.abs(x) / reach)
    normal = np.stack([x / reach, np.zeros_like(x), np.sqrt(np.maximum(1 - round_hair * round_hair, np.float32(0.05)))])
    locks = HALF + HALF * texture(view.x * 22 + column(who["strand"]), view.y * 2)
    over(canvas, cover, camera.light(paint.colour(who["hair"]) * locks * np.float32(0.75), normal, frames, 0.0))


def body(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """Neck in the shadow of the chin, shoulders in cloth."""
    x = view.x + view.yaw[0] * np.float32(0.18)
    thick = column(who["neck"]) + np.float32(0.35) * clip(view.y - np.float32(0.95)) ** 2
    round_neck = clip(x / thick, -1.0, 1.0)
    normal = np.stack([round_neck, np.zeros_like(x), np.sqrt(1 - round_neck * round_neck * np.float32(0.98))])
    cover = step(np.minimum(thick - np.abs(x), view.y - np.float32(0.2)) / view.pixel)
    albedo = np.broadcast_to(paint.colour(who["skin"]), (3, *x.shape)).copy()
    shade(albedo, clip(np.float32(1.35) - view.y) * np.float32(0.8), (0.85, 1.0, 1.0))
    over(canvas, cover, camera.light(albedo, normal, frames, 0.0))
    slope = np.float32(1.12) + np.float32(0.22) * x * x + np.float32(0.1) * (1 - clip(np.abs(x) * 3))
    wide = clip(x / np.float32(1.6), -1.0, 1.0)
    normal = np.stack([wide, np.full_like(x, -0.35), np.sqrt(1 - wide * wide * np.float32(0.9))])
    weave = np.float32(0.85) + np.float32(0.3) * texture(x * 5 + column(who["strand"]), view.y * 3)
    cloth = camera.light(paint.colour(who["cloth"]) * weave, normal * np.float32(0.94), frames, 0.0)
    over(canvas, step((view.y - slope) / view.pixel), cloth)


def ears(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """An ear on each side, behind the cheek that is turned away."""
    (sine, cosine), (pitch, _) = view.yaw, view.pitch
    for sign in (-1, 1):
        middle = np.float32(sign) * (column(who["width"]) + np.float32(0.005)) * cosine - sine * np.float32(0.05)
        u = (view.x - middle) * np.float32(sign)
        v = view.y - column(who["eye_y"]) - np.float32(0.14) - pitch * np.float32(0.4)
        large = column(who["ear"])
        radius = ellipse(u - v * np.float32(0.12), v, 0.085, 0.19) / (large * large)
        away = 1 + np.float32(1.4) * np.float32(sign) * sine
        cover = step((1 - np.sqrt(radius)) * np.float32(0.085) / view.pixel) * clip(away * 2)
        albedo = np.broadcast_to(paint.colour(who["skin"]), (3, *u.shape)).copy()
        shade(albedo, bump(ellipse(u, v + np.float32(0.01), 0.045, 0.12)) * np.float32(0.35), (0.7, 1.0, 1.0))
        normal = np.stack([np.full_like(u, 0.35 * sign), v * 2, np.full_like(u, 0.75)])
        over(canvas, cover, camera.light(albedo, normal, frames, 0.0))

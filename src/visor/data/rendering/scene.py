"""A complete frame: wall, hair behind, neck and cloth, head with ears, hair in front."""

import numpy as np

from visor.core.types import ImageArray
from visor.data.rendering import camera, paint
from visor.data.rendering.frames import Frames
from visor.data.rendering.geometry import View, head_surface, view_rays
from visor.data.rendering.identity import Identities
from visor.data.rendering.shapes import Plane, alpha_over, bump, clip, ellipse, shade, step, texture


def render(identities: Identities, frames: Frames, height: int, width: int) -> ImageArray:
    """Render uint8 (n, height, width, 3) from n identities and n frames; a frame does not depend on the others.

    The bytes are the same on every processor: see ``shapes``.
    """
    return camera.capture(draw(identities, frames, height, width), frames)


def draw(identities: Identities, frames: Frames, height: int, width: int) -> ImageArray:
    """Draw what stands before the camera, sharp and without noise: arguments and result are those of ``render``."""
    return np.rint(camera.display(light_field(identities, frames, height, width))).astype(np.uint8)


def light_field(identities: Identities, frames: Frames, height: int, width: int) -> Plane:
    """Return the light that enters the lens, linear (3, n, height, width); arguments are those of ``render``."""
    who, frames = identities[:, None, None], frames[:, None, None]
    view = view_rays(frames, height, width)
    canvas = camera.background(frames, height, width)
    for part in (behind, body, ears, head):
        part(canvas, view, who, frames)
    return canvas


def head(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """Paint the face, and over it the shell of hair with its shadow."""
    face = head_surface(view, who, np.zeros((1, 1, 1), np.float32), features=True)
    albedo = paint.skin(face, view.pixel, who, frames)
    crown = head_surface(view, who, who["volume"] * 0.5 + 0.015, features=False)
    above = paint.hairline(crown, who)
    shadow = bump(np.minimum(above, 0) ** 2 * 120) * who["cover"]
    shade(albedo, shadow * 0.35)
    alpha_over(canvas, face.coverage, camera.light(albedo, face.normal, frames, 0.035))
    soft = view.pixel + who["rough"] * 0.35
    cover = crown.coverage * step(above / soft) * who["cover"]
    shine = paint.strands(crown, who)
    hair = paint.colour(who["hair"]) * shine
    gloss = who["gloss"] * 0.10 * shine
    alpha_over(canvas, cover, camera.light(hair, crown.normal, frames, gloss))


def behind(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """Paint hair that falls behind the neck."""
    sine = view.yaw[0]
    volume = who["width"] + who["volume"]
    x, back = view.x + sine * 0.25, who["back"]
    ragged = (texture(view.x * 6 + who["strand"], view.y) - 0.5) * 0.16
    loose = clip((back - 0.5) * 2)
    crown = clip((0.15 - view.y) * 0.75)  # above the ears it closes over the head
    reach = volume * (0.72 + 0.26 * loose + 0.10 * clip(view.y) * loose) + ragged * 0.5
    reach = reach * np.sqrt(np.maximum(1 - crown * crown, 0.01))
    side, low = reach - np.abs(x), back + ragged - view.y
    cover = step(np.minimum(side, low) / (view.pixel * 2)) * (who["cover"] > 0.5)
    round_hair = clip(np.abs(x) / reach)
    normal = np.stack([x / reach, np.zeros_like(x), np.sqrt(np.maximum(1 - round_hair * round_hair, 0.05))])
    locks = 0.5 + 0.5 * texture(view.x * 22 + who["strand"], view.y * 2)
    alpha_over(canvas, cover, camera.light(paint.colour(who["hair"]) * locks * 0.75, normal, frames, 0.0))


def body(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """Paint the neck in the shadow of the chin, and shoulders in cloth."""
    x = view.x + view.yaw[0] * 0.18
    thick = who["neck"] + 0.35 * clip(view.y - 0.95) ** 2
    round_neck = clip(x / thick, -1.0, 1.0)
    normal = np.stack([round_neck, np.zeros_like(x), np.sqrt(1 - round_neck * round_neck * 0.98)])
    cover = step(np.minimum(thick - np.abs(x), view.y - 0.2) / view.pixel)
    albedo = np.broadcast_to(paint.colour(who["skin"]), (3, *x.shape)).copy()
    shade(albedo, clip(1.35 - view.y) * 0.8, (0.85, 1.0, 1.0))
    alpha_over(canvas, cover, camera.light(albedo, normal, frames, 0.0))
    slope = 1.12 + 0.22 * x * x + 0.1 * (1 - clip(np.abs(x) * 3))
    wide = clip(x / 1.6, -1.0, 1.0)
    normal = np.stack([wide, np.full_like(x, -0.35), np.sqrt(1 - wide * wide * 0.9)])
    weave = 0.85 + 0.3 * texture(x * 5 + who["strand"], view.y * 3)
    cloth = camera.light(paint.colour(who["cloth"]) * weave, normal * 0.94, frames, 0.0)
    alpha_over(canvas, step((view.y - slope) / view.pixel), cloth)


def ears(canvas: Plane, view: View, who: Identities, frames: Frames) -> None:
    """Paint an ear on each side, behind the cheek that is turned away."""
    (sine, cosine), (pitch, _) = view.yaw, view.pitch
    for sign in (-1, 1):
        middle = sign * (who["width"] + 0.005) * cosine - sine * 0.05
        u = (view.x - middle) * sign
        v = view.y - who["eye_y"] - 0.14 - pitch * 0.4
        large = who["ear"]
        radius = ellipse(u - v * 0.12, v, 0.085, 0.19) / (large * large)
        away = 1 + 1.4 * sign * sine
        cover = step((1 - np.sqrt(radius)) * 0.085 / view.pixel) * clip(away * 2)
        albedo = np.broadcast_to(paint.colour(who["skin"]), (3, *u.shape)).copy()
        shade(albedo, bump(ellipse(u, v + 0.01, 0.045, 0.12)) * 0.35, (0.7, 1.0, 1.0))
        normal = np.stack([np.full_like(u, 0.35 * sign), v * 2, np.full_like(u, 0.75)])
        alpha_over(canvas, cover, camera.light(albedo, normal, frames, 0.0))

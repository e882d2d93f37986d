"""The head as an elliptic cylinder of varying width and depth, with bumps, seen under yaw and pitch.

Head coordinates: x to the right of the image, y down, z towards the viewer, in half frame heights.
"""

from typing import NamedTuple

import numpy as np

from visor.data.rendering.frames import Frames
from visor.data.rendering.identity import Identities
from visor.data.rendering.shapes import Plane, ellipse, step

Column = Plane  # (n, 1, 1): one number a frame, to broadcast over its pixels
# Centre x and y, radii along x and y, height, and whether there is one on each side of the face.
Bump = tuple[Plane | float, Plane | float, Plane | float, Plane | float, Plane | float, bool]


class View(NamedTuple):
    """Rays of the pixels: ``x`` and ``y`` (n, h, w) from the head's centre, before its rotation.

    ``pixel`` is the height of a pixel; ``yaw`` and ``pitch`` are (sine, cosine).
    """

    x: Plane
    y: Plane
    pixel: Column
    yaw: tuple[Column, Column]
    pitch: tuple[Column, Column]


class Surface(NamedTuple):
    """The visible surface at each pixel: head coordinates, angle around the head, normal and coverage.

    ``side`` is the sine of the angle around the head (−1 … 1), ``front`` its cosine; ``normal`` (3, n, h, w) is of unit
    length, in the viewer's frame.
    """

    x: Plane
    y: Plane
    side: Plane
    front: Plane
    normal: Plane
    coverage: Plane


def turn(half_tangent: Column) -> tuple[Column, Column]:
    """Return sine and cosine of an angle from the tangent of its half, by exact operations."""
    t = half_tangent
    return 2 * t / (1 + t * t), (1 - t * t) / (1 + t * t)


def view_rays(frames: Frames, height: int, width: int) -> View:
    """Undo shift, roll and scale for every pixel of the frames (n, 1, 1)."""
    rows = (np.arange(height, dtype=np.float32) + 0.5) * (2 / height) - 1
    columns = (np.arange(width, dtype=np.float32) * 2 + (1 - width)) * (1 / height)
    u, v = columns[None, None, :] - frames["shift_x"], rows[None, :, None] - frames["shift_y"]
    sine, cosine = turn(frames["roll"])
    scale = 1 / frames["scale"]
    x, y = (u * cosine + v * sine) * scale, (v * cosine - u * sine) * scale
    return View(x, y, 2 / height * scale, turn(frames["yaw"]), turn(frames["pitch"]))


def profile(y: Plane, top: Column, chin: Column, jaw: Column) -> tuple[Plane, Plane]:
    """Return width and depth of the head at height y as shares of the maximum: (0 … 1) each, (n, h, w).

    Above y = 0 it closes at ``top`` and below at ``chin``, where ``jaw`` goes from pointed to square.
    """
    up, down = np.maximum(np.minimum(y / top, 1), 0), np.minimum(np.maximum(y / chin, 0), 1)
    skull = 1 - up * up * up
    down2 = down * down
    square = 0.12 + 0.5 * jaw
    lower = 1 - (square * down2 * down2 * down2 + (1 - square) * down2 * (0.75 + 0.25 * down2)) * 0.97
    share = np.sqrt(np.maximum(skull * lower, 1e-4))
    depth = np.sqrt(np.maximum(skull * (1 - 0.75 * down2 * down2 * down2), 1e-4))
    return share, depth


def head_surface(view: View, who: Identities, volume: Column, features: bool) -> Surface:
    """Intersect each pixel's ray with the head, grown by ``volume``; ``features`` adds the bumps of a face.

    The intersection depends on the depth of the surface there: three iterations of a fixed point.
    """
    (sine, cosine), (pitch_sine, pitch_cosine) = view.yaw, view.pitch
    width, depth = who["width"] + volume, who["depth"] + volume
    top, chin = who["top"] - volume, who["chin"] + volume * 0.3
    jaw = who["jaw"]
    raised: Plane | float = 0.0
    outward = depth * 0.9
    for _ in range(3):
        y = (view.y + (outward - 0.35) * pitch_sine) / pitch_cosine
        wide, deep = profile(y, top, chin, jaw)
        wide, deep = wide * width, deep * depth
        a, b = wide * cosine, deep * sine
        reach = np.sqrt(a * a + b * b)
        place = (view.x - raised * sine) / reach
        rest = np.sqrt(np.maximum(1 - place * place, 1e-3))
        side, front = (place * a - rest * b) / reach, (place * b + rest * a) / reach
        x = side * wide
        if features:
            raised, slope_x, slope_y = relief(x, y, who, front)
        outward = -x * sine + (front * deep + raised) * cosine
    inside = np.minimum((1 - np.abs(place)) * reach, np.minimum(y - top, chin - y) * 0.8)
    slope = (profile(y + 0.05, top, chin, jaw)[0] * width - wide) * 20
    normal = np.stack([side, -slope, front * (wide / deep)])
    if features:
        normal[0] -= slope_x
        normal[1] -= slope_y
    return Surface(x, y, side, front, _to_viewer(normal, view), step(inside / view.pixel))


def _to_viewer(normal: Plane, view: View) -> Plane:
    (sine, cosine), (pitch_sine, pitch_cosine) = view.yaw, view.pitch
    x, y, z = normal
    across, along = x * cosine + z * sine, z * cosine - x * sine
    turned = np.stack([across, y * pitch_cosine - along * pitch_sine, along * pitch_cosine + y * pitch_sine])
    return turned / np.sqrt(turned[0] ** 2 + turned[1] ** 2 + turned[2] ** 2 + 1e-6)


def relief(x: Plane, y: Plane, who: Identities, front: Plane) -> tuple[Plane, Plane, Plane]:
    """Return the height of the features over the smooth head at (x, y), and its slopes along x and y; (n, h, w) each.

    A bump is height·(1 − r²)² inside its ellipse. Bumps fade where the head turns away (``front`` below 1).
    """
    mirrored = np.abs(x)
    sign = np.where(x < 0, np.float32(-1), np.float32(1))
    total, slope_x, slope_y = (np.zeros_like(x) for _ in range(3))
    for *numbers, paired in _bumps(who):
        middle_x, middle_y, radius_x, radius_y, height = (np.asarray(number, np.float32) for number in numbers)
        dx, dy = (mirrored if paired else x) - middle_x, y - middle_y
        inside = np.maximum(1 - ellipse(dx, dy, radius_x, radius_y), 0)
        total += height * inside * inside
        fall = -4 * height * inside
        slope_x += fall * dx / (radius_x * radius_x) * (sign if paired else 1)
        slope_y += fall * dy / (radius_y * radius_y)
    ahead = np.maximum(front, 0)
    return total * ahead, slope_x * ahead, slope_y * ahead


def _bumps(who: Identities) -> list[Bump]:
    nose, mouth, chin, eye_x, eye_y = (who[name] for name in ("nose_y", "mouth_y", "chin", "eye_x", "eye_y"))
    bridge, brow = (nose + eye_y) / 2, eye_y - who["brow_gap"]
    wide = who["nose_width"]
    return [
        (0, bridge, who["nose_bridge_width"], (nose - eye_y) * 0.85, who["nose_bridge"], False),
        (0, nose - 0.03, wide * 1.25, 0.17, who["nose_tip"] * 0.8, False),
        (wide * 0.8, nose + 0.02, 0.065, 0.06, 0.05, True),  # wings of the nose
        (eye_x, eye_y, 0.20, 0.16, -who["socket"], True),
        (eye_x, eye_y, who["eye_width"] * 1.15, who["eye_height"] * 1.6, 0.03, True),  # eyeballs
        (eye_x * 0.9, brow, 0.26, 0.09, who["brow_ridge"], True),
        (0.36, 0.13, 0.22, 0.24, who["cheeks"], True),
        (0, mouth - 0.02, who["mouth_width"] * 1.2, 0.12, 0.035, False),
        (0, mouth + 0.14, 0.16, 0.05, -0.02, False),  # the hollow under the lips
        (0, chin - 0.14, who["chin_width"], 0.14, who["chin_height"], False),
    ]

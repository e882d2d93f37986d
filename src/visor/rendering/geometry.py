"""The head as an elliptic cylinder of varying width and depth, with bumps, seen under yaw and pitch.

Head coordinates: x to the right of the image, y down, z towards the viewer, in half frame heights.
"""

from typing import NamedTuple

import numpy as np

from visor.rendering.frames import Frames
from visor.rendering.identity import Identities
from visor.rendering.shapes import Plane, ellipse, step

Column = Plane  # (n, 1, 1): one number a frame


class View(NamedTuple):
    """Where each pixel looks: planes (n, h, w) about the head's middle, unturned, and per-frame columns."""

    x: Plane
    y: Plane
    pixel: Column
    yaw: tuple[Column, Column]
    pitch: tuple[Column, Column]


class Surface(NamedTuple):
    """What a shell shows at each pixel: head coordinates, how far round it is, normal and coverage.

    ``side`` is the sine of the angle round the head (−1 … 1), ``front`` its cosine; ``normal`` (3, n, h, w) is of
    unit length, in the viewer's frame.
    """

    x: Plane
    y: Plane
    side: Plane
    front: Plane
    normal: Plane
    coverage: Plane


def column(values: Plane) -> Column:
    """One number a frame, to broadcast over its pixels."""
    return np.asarray(values, np.float32)[:, None, None]


def turn(half_tangent: Plane) -> tuple[Column, Column]:
    """Sine and cosine of an angle from the tangent of its half: exact operations alone."""
    t = column(half_tangent)
    return 2 * t / (1 + t * t), (1 - t * t) / (1 + t * t)


def look(frames: Frames, height: int, width: int) -> View:
    """Undo shift, roll and scale for every pixel of the frames."""
    rows = (np.arange(height, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / height) - 1
    columns = (np.arange(width, dtype=np.float32) * 2 + (1 - width)) * np.float32(1 / height)
    u = columns[None, None, :] - column(frames["shift_x"])
    v = rows[None, :, None] - column(frames["shift_y"])
    sine, cosine = turn(frames["roll"])
    scale = 1 / column(frames["scale"])
    pixel = np.float32(2 / height) * scale
    return View(
        (u * cosine + v * sine) * scale,
        (v * cosine - u * sine) * scale,
        pixel,
        turn(frames["yaw"]),
        turn(frames["pitch"]),
    )


def profile(y: Plane, top: Column, chin: Column, jaw: Column) -> tuple[Plane, Plane]:
    """Width of the head at height y as a share of its widest, and of its depth: (0 … 1) each."""
    up, down = np.minimum(y / top, np.float32(1)), np.minimum(np.maximum(y / chin, np.float32(0)), np.float32(1))
    upper = np.maximum(up, np.float32(0))
    skull = 1 - upper * upper * upper
    down2 = down * down
    square = np.float32(0.12) + np.float32(0.5) * jaw
    lower = 1 - (
        square * down2 * down2 * down2 + (1 - square) * down2 * (np.float32(0.75) + np.float32(0.25) * down2)
    ) * np.float32(0.97)
    share = np.sqrt(np.maximum(skull * lower, np.float32(1e-4)))
    depth = np.sqrt(np.maximum(skull * (1 - np.float32(0.75) * down2 * down2 * down2), np.float32(1e-4)))
    return share, depth


def shell(view: View, who: Identities, volume: Column, features: bool) -> Surface:
    """Hit the head, grown by ``volume``, with every pixel's ray; ``features`` adds the bumps of a face."""
    (sine, cosine), (pitch_sine, pitch_cosine) = view.yaw, view.pitch
    width, depth = column(who["width"]) + volume, column(who["depth"]) + volume
    top, chin = column(who["top"]) - volume, column(who["chin"]) + volume * np.float32(0.3)
    jaw = column(who["jaw"])
    raised: Plane = np.zeros((1, 1, 1), np.float32)
    outward = depth * np.float32(0.9)
    for _ in range(3):
        y = (view.y + (outward - np.float32(0.35)) * pitch_sine) / pitch_cosine
        wide, deep = profile(y, top, chin, jaw)
        wide, deep = wide * width, deep * depth
        a, b = wide * cosine, deep * sine
        reach = np.sqrt(a * a + b * b)
        place = (view.x - raised * sine) / reach
        rest = np.sqrt(np.maximum(1 - place * place, np.float32(1e-3)))
        side, front = (place * a - rest * b) / reach, (place * b + rest * a) / reach
        x = side * wide
        if features:
            raised, slope_x, slope_y = relief(x, y, who, front)
        outward = -x * sine + (front * deep + raised) * cosine
    inside = np.minimum((1 - np.abs(place)) * reach, np.minimum(y - top, chin - y) * np.float32(0.8))
    slope = (profile(y + np.float32(0.05), top, chin, jaw)[0] * width - wide) * np.float32(20)
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
    return turned / np.sqrt(turned[0] ** 2 + turned[1] ** 2 + turned[2] ** 2 + np.float32(1e-6))


def relief(x: Plane, y: Plane, who: Identities, front: Plane) -> tuple[Plane, Plane, Plane]:
    """Height of the features over the smooth head, and its slopes along x and y."""
    mirrored = np.abs(x)
    sign = np.where(x < 0, np.float32(-1), np.float32(1))
    total, slope_x, slope_y = (np.zeros_like(x) for _ in range(3))
    for middle_x, middle_y, radius_x, radius_y, height, paired in _bumps(who):
        dx, dy = (mirrored if paired else x) - column(middle_x), y - column(middle_y)
        radius_x, radius_y, height = column(radius_x), column(radius_y), column(height)
        inside = np.maximum(1 - ellipse(dx, dy, radius_x, radius_y), np.float32(0))
        total += height * inside * inside
        fall = -4 * height * inside
        slope_x += fall * dx / (radius_x * radius_x) * (sign if paired else np.float32(1))
        slope_y += fall * dy / (radius_y * radius_y)
    ahead = np.maximum(front, np.float32(0))
    return total * ahead, slope_x * ahead, slope_y * ahead


def _bumps(who: Identities) -> list[tuple[Plane, Plane, Plane, Plane, Plane, bool]]:
    """Middle, radii, height and whether there is one on each side: nose, eyes, brows, cheeks, mouth, chin."""
    zero = np.zeros(len(who), np.float32)

    def flat(value: float) -> Plane:
        return zero + np.float32(value)

    nose, mouth, chin = who["nose_y"], who["mouth_y"], who["chin"]
    eye_x, eye_y = who["eye_x"], who["eye_y"]
    return [
        (
            zero,
            (nose + eye_y) / 2,
            who["nose_bridge_width"],
            (nose - eye_y) * np.float32(0.85),
            who["nose_bridge"],
            False,
        ),
        (
            zero,
            nose - np.float32(0.03),
            who["nose_width"] * np.float32(1.25),
            flat(0.17),
            who["nose_tip"] * np.float32(0.8),
            False,
        ),
        (who["nose_width"] * np.float32(0.8), nose + np.float32(0.02), flat(0.065), flat(0.06), flat(0.05), True),
        (eye_x, eye_y, flat(0.20), flat(0.16), -who["socket"], True),
        (eye_x, eye_y, who["eye_width"] * np.float32(1.15), who["eye_height"] * np.float32(1.6), flat(0.03), True),
        (eye_x * np.float32(0.9), eye_y - who["brow_gap"], flat(0.26), flat(0.09), who["brow_ridge"], True),
        (flat(0.36), flat(0.13), flat(0.22), flat(0.24), who["cheeks"], True),
        (zero, mouth - np.float32(0.02), who["mouth_width"] * np.float32(1.2), flat(0.12), flat(0.035), False),
        (zero, mouth + np.float32(0.14), flat(0.16), flat(0.05), flat(-0.02), False),
        (zero, chin - np.float32(0.14), who["chin_width"], flat(0.14), who["chin_height"], False),
    ]

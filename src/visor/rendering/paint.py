"""Colours of a face before light falls on it: eyes, brows, lips, beard, marks, and the hair around it."""

import numpy as np

from visor.rendering.frames import Frames
from visor.rendering.geometry import Surface, column
from visor.rendering.identity import Identities
from visor.rendering.shapes import Plane, bump, clip, disc, ellipse, over, shade, step, texture

HALF = np.float32(0.5)


def colour(values: Plane) -> Plane:
    """One colour a frame (n, 3) as (3, n, 1, 1)."""
    return np.moveaxis(values, -1, 0)[..., None, None]


def skin(at: Surface, pixel: Plane, who: Identities, frames: Frames) -> Plane:
    """Return the albedo (3, n, h, w) of the face, in linear light."""
    canvas = np.broadcast_to(colour(who["skin"]), (3, *at.x.shape)).copy()
    marks(canvas, at, who)
    beard(canvas, at, who)
    mouth(canvas, at, pixel, who, frames)
    for sign in (-1, 1):
        eye(canvas, np.float32(sign) * at.x, at.y, sign, pixel, who, frames)
        brow(canvas, np.float32(sign) * at.x, at, pixel, who, frames)
    return canvas


def marks(canvas: Plane, at: Surface, who: Identities) -> None:
    """Blush, freckles, a mole, folds of age, the dark of nostrils and eye sockets."""
    seed, across = column(who["strand"]), np.abs(at.x)
    rough = texture(at.x * 9 + seed, at.y * 9 + seed) - HALF
    shade(canvas, rough * np.float32(0.10))
    cheek = bump(ellipse(across - np.float32(0.34), at.y - np.float32(0.18), 0.2, 0.2))
    shade(canvas, cheek * column(who["blush"]) * np.float32(0.5), (0.0, 0.8, 0.7))
    spots = texture(at.x * 28 + seed, at.y * 28) - np.float32(0.62)
    freckled = clip(spots * 4) * clip(column(who["freckles"])) * bump(ellipse(at.x, at.y - np.float32(0.1), 0.55, 0.3))
    shade(canvas, freckled * np.float32(0.6), (0.5, 0.8, 1.0))
    mole = np.sqrt(ellipse(at.x - column(who["mole_x"]), at.y - column(who["mole_y"]), 1, 1))
    shade(canvas, clip((column(who["mole"]) - mole) * 60) * np.float32(0.75))
    age = clip(column(who["age"]))
    fold = across - np.float32(0.16) - (at.y - column(who["nose_y"])) * HALF
    along = bump(ellipse(np.float32(0), at.y - (column(who["nose_y"]) + column(who["mouth_y"])) * HALF, 1, 0.2))
    shade(canvas, along * bump((fold * 22) ** 2) * (np.float32(0.12) + np.float32(0.3) * age), (0.8, 1.0, 1.0))
    under = bump(ellipse(across - column(who["eye_x"]), at.y - column(who["eye_y"]) - np.float32(0.11), 0.14, 0.05))
    shade(canvas, under * (np.float32(0.12) + np.float32(0.25) * age), (0.7, 1.0, 0.9))
    hollow = bump(ellipse(across - np.float32(0.6) * column(who["eye_x"]), at.y - column(who["eye_y"]), 0.13, 0.15))
    shade(canvas, hollow * np.float32(0.12))
    wing = across - column(who["nose_width"]) * np.float32(0.5)
    nostril = bump(ellipse(wing, at.y - column(who["nose_y"]) - np.float32(0.075), 0.045, 0.03))
    shade(canvas, nostril * np.float32(0.7), (0.85, 1.0, 1.0))
    below = bump(ellipse(at.x, at.y - column(who["nose_y"]) - np.float32(0.1), 0.14, 0.05))
    shade(canvas, below * np.float32(0.15))


def beard(canvas: Plane, at: Surface, who: Identities) -> None:
    """Moustache, goatee and full beard, thinning out towards their edges."""
    across, seed = np.abs(at.x), column(who["strand"])
    mouth_y = column(who["mouth_y"])
    grain = np.float32(0.55) + np.float32(0.45) * texture(at.x * 34 + seed, at.y * 22)
    upper = bump(ellipse(at.x, at.y - mouth_y + np.float32(0.10), 0.30, 0.085))
    lower = bump(ellipse(at.x, at.y - mouth_y - np.float32(0.24), 0.26, 0.26))
    line = np.float32(0.05) + np.float32(0.85) * (column(who["width"]) - across)
    full = step((at.y - line) * np.float32(3.5)) * clip((at.y + np.float32(0.02)) * 5)
    cover = np.maximum(
        clip(upper * np.float32(2.2)) * column(who["moustache"]), clip(lower * 2) * column(who["goatee"])
    )
    cover = np.maximum(cover, full * column(who["beard"]))
    over(canvas, cover * grain * np.float32(0.9), colour(who["hair"] * np.float32(0.8)))


def mouth(canvas: Plane, at: Surface, pixel: Plane, who: Identities, frames: Frames) -> None:
    """Lips along a curve that a smile bends, and the teeth or the dark between them."""
    smile, opening = column(frames["smile"]), column(frames["open"])
    half_width = column(who["mouth_width"]) * (1 + np.float32(0.22) * smile)
    along = at.x / half_width
    arch = np.maximum(1 - along * along, np.float32(0))
    bend = (np.float32(0.075) * smile + column(who["lip_curve"])) * along * along
    line = column(who["mouth_y"]) + np.float32(0.025) * smile - bend
    gap = np.float32(0.075) * opening * arch
    bow = 1 - column(who["lip_bow"]) * bump((along * 5) ** 2) * HALF
    upper = column(who["lip_upper"]) * np.sqrt(arch) * bow * (1 - np.float32(0.25) * smile)
    lower = column(who["lip_lower"]) * arch * (1 - np.float32(0.2) * smile)
    above, below = at.y - line + upper, line + gap + lower - at.y
    lips = step(np.minimum(above, below) / pixel) * (arch > 0)
    over(canvas, lips * np.float32(0.85), colour(who["lips"]))
    shade(canvas, lips * bump(((at.y - line) * 30) ** 2) * np.float32(0.3))
    inside = step(np.minimum(at.y - line, line + gap - at.y) / pixel + np.float32(0.15)) * (arch > 0)
    over(canvas, inside * clip(gap / pixel), np.array([0.06, 0.015, 0.015], np.float32)[:, None, None, None])
    teeth = inside * step((line + gap * np.float32(0.62) - at.y) / pixel) * clip(smile * 3) * clip(gap / pixel - HALF)
    over(canvas, teeth * clip(1.2 - along * along), np.array([0.72, 0.69, 0.62], np.float32)[:, None, None, None])
    crease = bump(((at.y - line) / (pixel * np.float32(0.8) + np.float32(0.006))) ** 2) * (arch > 0)
    shade(canvas, crease * np.float32(0.6), (0.9, 1.0, 1.0))
    corner = bump(ellipse(np.abs(at.x) - half_width, at.y - line, 0.045, 0.035))
    shade(canvas, corner * np.float32(0.35))


def eye(canvas: Plane, x: Plane, y: Plane, sign: int, pixel: Plane, who: Identities, frames: Frames) -> None:
    """One eye: white, iris, pupil, lids, lashes and the light in it; x runs towards the ear."""
    u = x - column(who["eye_x"])
    v = y - column(who["eye_y"]) + column(who["eye_tilt"]) * u
    half_width = column(who["eye_width"])
    tall = column(who["eye_height"]) * column(frames["lids"]) * (1 - np.float32(0.18) * column(frames["smile"]))
    along = u / half_width
    arch = np.maximum(1 - along * along, np.float32(0))
    upper, lower = v + tall * np.sqrt(arch) * np.float32(1.05), tall * np.float32(0.85) * arch - v
    opening = step(np.minimum(upper, lower) / pixel) * (arch > 0)
    over(canvas, opening, np.array([0.50, 0.47, 0.45], np.float32)[:, None, None, None])
    shade(canvas, opening * clip(1 - upper * 18) * HALF)
    side, down = u - np.float32(sign * 0.06) * column(frames["gaze_x"]), v - np.float32(0.04) * column(frames["gaze_y"])
    iris = opening * disc(side, down, 0.064, 0.064, pixel)
    over(canvas, iris, colour(who["eye"]))
    over(canvas, opening * disc(side, down, 0.028, 0.028, pixel), np.zeros((3, 1, 1, 1), np.float32))
    glint = opening * disc(side + np.float32(0.018 * sign), down + np.float32(0.024), 0.016, 0.016, pixel)
    over(canvas, glint, np.full((3, 1, 1, 1), 0.95, np.float32))
    near = (np.abs(along) < np.float32(1.12)).astype(np.float32)
    thick = np.float32(0.012) + np.float32(0.016) * column(who["lashes"]) + pixel * np.float32(0.25)
    edge = np.abs(v + tall * np.sqrt(arch) * np.float32(1.05))
    shade(canvas, clip(1 - edge / thick) * near * (HALF + np.float32(0.4) * column(who["lashes"])))
    shade(canvas, clip(1 - np.abs(lower) / (thick * HALF)) * near * np.float32(0.3))
    fold = np.abs(v + tall * np.sqrt(arch) * np.float32(1.05) + np.float32(0.045))
    shade(canvas, clip(1 - fold / np.float32(0.02)) * near * np.float32(0.4) * column(who["eye_fold"]))


def brow(canvas: Plane, x: Plane, at: Surface, pixel: Plane, who: Identities, frames: Frames) -> None:
    """One eyebrow: an arch of hair, thick near the nose."""
    u = (x - column(who["eye_x"]) - np.float32(0.01)) / column(who["brow_width"])
    arch = column(who["brow_arch"]) * (1 - (u - np.float32(0.1)) ** 2) * np.float32(0.8)
    middle = column(who["eye_y"]) - column(who["brow_gap"]) - column(frames["brows"]) - arch + np.float32(0.04)
    v = at.y - middle - (np.float32(0.018) + column(who["brow_tilt"])) * u
    taper = clip((1 - u * u) * np.float32(1.6)) * (1 - np.float32(0.25) * u)
    thick = column(who["brow_height"]) * taper + pixel * np.float32(0.2)
    grain = np.float32(0.75) + np.float32(0.25) * texture(x * 40, at.y * 60 + column(who["strand"]))
    cover = step((thick - np.abs(v)) / pixel) * clip(taper * 3) * column(who["brow_density"]) * grain
    over(canvas, cover, colour(who["hair"] * np.float32(0.75)))


def hairline(at: Surface, who: Identities) -> Plane:
    """How far a point of the hair's shell lies above the hairline; negative is bare skin."""
    seed, round_head = column(who["strand"]), at.side * at.side
    start, end = column(who["temple"]), column(who["side"])
    fall = clip((round_head - start) / (end - start))
    fall = fall * fall * (3 - 2 * fall)
    swept = column(who["sweep"]) * (at.side - column(who["part"])) * np.float32(0.7)
    front = column(who["front"]) + swept
    low = front + (column(who["end"]) - front) * fall
    low = np.where(at.front < 0, column(who["back"]), low)
    wild = (
        (texture(at.x * 5 + seed, seed) + texture(at.x * 19 + seed, seed) * HALF - np.float32(0.75))
        * column(who["rough"])
        * 2
    )
    curls = (texture(at.x * 14 + at.y * 6 + seed, at.y * 14 - at.x * 6) - HALF) * column(who["curl"]) * np.float32(0.12)
    return low + wild + curls - at.y


def strands(at: Surface, who: Identities) -> Plane:
    """Brightness of hair (n, h, w) about one: locks along the fall, or curls."""
    seed, curl = column(who["strand"]), column(who["curl"])
    lean = at.x + (at.side - column(who["part"])) * np.float32(0.2) * at.y
    straight = texture(lean * 26 + seed, at.y * np.float32(2.5)) - HALF
    # Turned against the lattice of the texture, which would show.
    curled = texture(at.x * 15 + at.y * 7 + seed, at.y * 15 - at.x * 7) - HALF
    return 1 + np.float32(0.55) * (straight * (1 - curl) + curled * curl * np.float32(1.4))

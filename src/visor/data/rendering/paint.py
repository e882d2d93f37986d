"""Colours of a face before light falls on it: eyes, brows, lips, beard, marks, and the hair around it."""

import numpy as np

from visor.data.rendering.frames import Frames
from visor.data.rendering.geometry import Surface
from visor.data.rendering.identity import Identities
from visor.data.rendering.shapes import Plane, alpha_over, bump, clip, disc, ellipse, shade, step, texture

# Red, green and blue of linear light (3, 1, 1, 1), the same in everyone.
THROAT, TEETH, WHITE, PUPIL, GLINT = np.array(
    [[0.06, 0.015, 0.015], [0.72, 0.69, 0.62], [0.50, 0.47, 0.45], [0, 0, 0], [0.95, 0.95, 0.95]], np.float32
)[..., None, None, None]


def colour(values: Plane) -> Plane:
    """Reorder one colour per frame from (n, 1, 1, 3) to (3, n, 1, 1)."""
    return np.moveaxis(values, -1, 0)


def skin(at: Surface, pixel: Plane, who: Identities, frames: Frames) -> Plane:
    """Return the albedo (3, n, h, w) of the face, in linear light."""
    canvas = np.broadcast_to(colour(who["skin"]), (3, *at.x.shape)).copy()
    marks(canvas, at, who)
    beard(canvas, at, who)
    mouth(canvas, at, pixel, who, frames)
    for sign in (-1, 1):
        eye(canvas, sign * at.x, at.y, sign, pixel, who, frames)
        brow(canvas, sign * at.x, at, pixel, who, frames)
    return canvas


def marks(canvas: Plane, at: Surface, who: Identities) -> None:
    """Paint blush, freckles, a mole, folds of age, nostrils and eye sockets."""
    seed, across = who["strand"], np.abs(at.x)
    rough = texture(at.x * 9 + seed, at.y * 9 + seed) - 0.5
    shade(canvas, rough * 0.10)
    cheek = bump(ellipse(across - 0.34, at.y - 0.18, 0.2, 0.2))
    shade(canvas, cheek * who["blush"] * 0.5, (0.0, 0.8, 0.7))
    spots = texture(at.x * 28 + seed, at.y * 28) - 0.62
    freckled = clip(spots * 4) * clip(who["freckles"]) * bump(ellipse(at.x, at.y - 0.1, 0.55, 0.3))
    shade(canvas, freckled * 0.6, (0.5, 0.8, 1.0))
    mole = np.sqrt(ellipse(at.x - who["mole_x"], at.y - who["mole_y"], 1, 1))
    shade(canvas, clip((who["mole"] - mole) * 60) * 0.75)
    age = clip(who["age"])
    fold = across - 0.16 - (at.y - who["nose_y"]) * 0.5
    along = bump(((at.y - (who["nose_y"] + who["mouth_y"]) * 0.5) / 0.2) ** 2)
    shade(canvas, along * bump((fold * 22) ** 2) * (0.12 + 0.3 * age), (0.8, 1.0, 1.0))
    under = bump(ellipse(across - who["eye_x"], at.y - who["eye_y"] - 0.11, 0.14, 0.05))
    shade(canvas, under * (0.12 + 0.25 * age), (0.7, 1.0, 0.9))
    hollow = bump(ellipse(across - 0.6 * who["eye_x"], at.y - who["eye_y"], 0.13, 0.15))
    shade(canvas, hollow * 0.12)
    wing = across - who["nose_width"] * 0.5
    nostril = bump(ellipse(wing, at.y - who["nose_y"] - 0.075, 0.045, 0.03))
    shade(canvas, nostril * 0.7, (0.85, 1.0, 1.0))
    below = bump(ellipse(at.x, at.y - who["nose_y"] - 0.1, 0.14, 0.05))
    shade(canvas, below * 0.15)


def beard(canvas: Plane, at: Surface, who: Identities) -> None:
    """Paint moustache, goatee and full beard, thinner towards their edges."""
    across, seed = np.abs(at.x), who["strand"]
    mouth_y = who["mouth_y"]
    grain = 0.55 + 0.45 * texture(at.x * 34 + seed, at.y * 22)
    upper = bump(ellipse(at.x, at.y - mouth_y + 0.10, 0.30, 0.085))
    lower = bump(ellipse(at.x, at.y - mouth_y - 0.24, 0.26, 0.26))
    line = 0.05 + 0.85 * (who["width"] - across)
    full = step((at.y - line) * 3.5) * clip((at.y + 0.02) * 5)
    cover = np.maximum(clip(upper * 2.2) * who["moustache"], clip(lower * 2) * who["goatee"])
    cover = np.maximum(cover, full * who["beard"])
    alpha_over(canvas, cover * grain * 0.9, colour(who["hair"] * 0.8))


def mouth(canvas: Plane, at: Surface, pixel: Plane, who: Identities, frames: Frames) -> None:
    """Paint the lips along a curve that a smile bends, and teeth or dark between them."""
    smile, opening = frames["smile"], frames["open"]
    half_width = who["mouth_width"] * (1 + 0.22 * smile)
    along = at.x / half_width
    arch = np.maximum(1 - along * along, 0)
    bend = (0.075 * smile + who["lip_curve"]) * along * along
    line = who["mouth_y"] + 0.025 * smile - bend
    gap = 0.075 * opening * arch
    bow = 1 - who["lip_bow"] * bump((along * 5) ** 2) * 0.5
    upper = who["lip_upper"] * np.sqrt(arch) * bow * (1 - 0.25 * smile)
    lower = who["lip_lower"] * arch * (1 - 0.2 * smile)
    above, below = at.y - line + upper, line + gap + lower - at.y
    lips = step(np.minimum(above, below) / pixel) * (arch > 0)
    alpha_over(canvas, lips * 0.85, colour(who["lips"]))
    shade(canvas, lips * bump(((at.y - line) * 30) ** 2) * 0.3)
    inside = step(np.minimum(at.y - line, line + gap - at.y) / pixel + 0.15) * (arch > 0)
    alpha_over(canvas, inside * clip(gap / pixel), THROAT)
    teeth = inside * step((line + gap * 0.62 - at.y) / pixel) * clip(smile * 3) * clip(gap / pixel - 0.5)
    alpha_over(canvas, teeth * clip(1.2 - along * along), TEETH)
    crease = bump(((at.y - line) / (pixel * 0.8 + 0.006)) ** 2) * (arch > 0)
    shade(canvas, crease * 0.6, (0.9, 1.0, 1.0))
    corner = bump(ellipse(np.abs(at.x) - half_width, at.y - line, 0.045, 0.035))
    shade(canvas, corner * 0.35)


def eye(canvas: Plane, x: Plane, y: Plane, sign: int, pixel: Plane, who: Identities, frames: Frames) -> None:
    """Paint one eye: white, iris, pupil, lids, lashes and reflection; x runs towards the ear."""
    u = x - who["eye_x"]
    v = y - who["eye_y"] + who["eye_tilt"] * u
    half_width = who["eye_width"]
    tall = who["eye_height"] * frames["lids"] * (1 - 0.18 * frames["smile"])
    along = u / half_width
    arch = np.maximum(1 - along * along, 0)
    upper, lower = v + tall * np.sqrt(arch) * 1.05, tall * 0.85 * arch - v
    opening = step(np.minimum(upper, lower) / pixel) * (arch > 0)
    alpha_over(canvas, opening, WHITE)
    shade(canvas, opening * clip(1 - upper * 18) * 0.5)
    side, down = u - sign * 0.06 * frames["gaze_x"], v - 0.04 * frames["gaze_y"]
    iris = opening * disc(side, down, 0.064, 0.064, pixel)
    alpha_over(canvas, iris, colour(who["eye"]))
    alpha_over(canvas, opening * disc(side, down, 0.028, 0.028, pixel), PUPIL)
    glint = opening * disc(side + 0.018 * sign, down + 0.024, 0.016, 0.016, pixel)
    alpha_over(canvas, glint, GLINT)
    near = (np.abs(along) < 1.12).astype(np.float32)
    thick = 0.012 + 0.016 * who["lashes"] + pixel * 0.25
    shade(canvas, clip(1 - np.abs(upper) / thick) * near * (0.5 + 0.4 * who["lashes"]))
    shade(canvas, clip(1 - np.abs(lower) / (thick * 0.5)) * near * 0.3)
    shade(canvas, clip(1 - np.abs(upper + 0.045) / 0.02) * near * 0.4 * who["eye_fold"])


def brow(canvas: Plane, x: Plane, at: Surface, pixel: Plane, who: Identities, frames: Frames) -> None:
    """Paint one eyebrow: an arch of hair, thick near the nose."""
    u = (x - who["eye_x"] - 0.01) / who["brow_width"]
    arch = who["brow_arch"] * (1 - (u - 0.1) ** 2) * 0.8
    middle = who["eye_y"] - who["brow_gap"] - frames["brows"] - arch + 0.04
    v = at.y - middle - (0.018 + who["brow_tilt"]) * u
    taper = clip((1 - u * u) * 1.6) * (1 - 0.25 * u)
    thick = who["brow_height"] * taper + pixel * 0.2
    grain = 0.75 + 0.25 * texture(x * 40, at.y * 60 + who["strand"])
    cover = step((thick - np.abs(v)) / pixel) * clip(taper * 3) * who["brow_density"] * grain
    alpha_over(canvas, cover, colour(who["hair"] * 0.75))


def hairline(at: Surface, who: Identities) -> Plane:
    """Return the distance of a point of the hair's shell above the hairline (n, h, w); negative is bare skin."""
    seed, round_head = who["strand"], at.side * at.side
    start, end = who["temple"], who["side"]
    fall = clip((round_head - start) / (end - start))
    fall = fall * fall * (3 - 2 * fall)
    swept = who["sweep"] * (at.side - who["part"]) * 0.7
    front = who["front"] + swept
    low = front + (who["end"] - front) * fall
    low = low + (who["back"] - low) * clip(-3 * at.front)
    wild = (texture(at.x * 5 + seed, seed) + texture(at.x * 19 + seed, seed) * 0.5 - 0.75) * who["rough"] * 2
    curls = (texture(at.x * 14 + at.y * 6 + seed, at.y * 14 - at.x * 6) - 0.5) * who["curl"] * 0.12
    return low + wild + curls - at.y


def strands(at: Surface, who: Identities) -> Plane:
    """Return the brightness of hair (n, h, w), about 1: locks along the fall, or curls."""
    seed, curl = who["strand"], who["curl"]
    lean = at.x + (at.side - who["part"]) * 0.2 * at.y
    straight = texture(lean * 26 + seed, at.y * 2.5) - 0.5
    # Rotated against the lattice of the texture, which would be visible.
    curled = texture(at.x * 15 + at.y * 7 + seed, at.y * 15 - at.x * 7) - 0.5
    return 1 + 0.55 * (straight * (1 - curl) + curled * curl * 1.4)

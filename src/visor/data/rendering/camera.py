"""Light, and the effects of a camera: background, blur, noise, 8 bits, JPEG."""

import numpy as np

from visor.core.types import ImageArray
from visor.data.images import jpeg_round_trip
from visor.data.rendering.frames import Frames
from visor.data.rendering.shapes import Plane, clip, texture


def light(albedo: Plane, normal: Plane, frames: Frames, gloss: Plane | float) -> Plane:
    """Return the light reflected by a surface to the viewer, linear (3, n, h, w).

    Lambert's law for one lamp and for the sky, and Blinn's highlight (1977) to the power of 16, of strength ``gloss``.
    The lamp shines from (light_x, light_y, 1); the normal (3, n, h, w) is of unit length.
    """
    across, down = frames["light_x"], frames["light_y"]
    length = np.sqrt(across * across + down * down + 1)
    x, y, z = across / length, down / length, 1 / length
    facing = np.maximum(normal[0] * x + normal[1] * y + normal[2] * z, 0)
    sky = frames["ambient"] * (0.8 - 0.25 * normal[1])
    half = np.sqrt(x * x + y * y + (z + 1) * (z + 1))
    shine = np.maximum((normal[0] * x + normal[1] * y + normal[2] * (z + 1)) / half, 0)
    for _ in range(4):
        shine = shine * shine
    brightness = sky + frames["light"] * facing
    lit = albedo * brightness + gloss * shine * frames["light"]
    warmth = frames["warmth"]
    lit[0] *= 1 + warmth
    lit[2] *= 1 - warmth
    return lit


def background(frames: Frames, height: int, width: int) -> Plane:
    """Draw a wall out of focus (3, n, h, w), linear: a slope of light with large soft spots, nearly grey."""
    rows = np.linspace(-1, 1, height, dtype=np.float32)[None, :, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, None, :]
    slope_x, slope_y = frames["back_slope_x"] - 0.5, frames["back_slope_y"] - 0.5
    place = frames["back_place"] * 90
    spots = texture(columns * 1.3 + place, rows * 1.3 + place) - 0.5
    level = 0.04 + 0.55 * frames["back_light"] ** 2
    grey = level * (1 + slope_x * columns + slope_y * rows + spots * frames["back_noise"] * 1.2)
    red, blue = frames["back_red"] - 0.5, frames["back_blue"] - 0.5
    grey = np.maximum(grey, 0.01)
    return np.stack([grey * (1 + red * 0.5), grey, grey * (1 + blue * 0.5)])


def blur(light_field: Plane, radius: Plane) -> Plane:
    """Blur by two passes of a three-tap kernel along each axis; radius in pixels (n, 1, 1)."""
    weight = np.minimum(radius * radius * 0.25, 0.25)
    for axis in (-1, -2, -1, -2):
        before, after = _shifted(light_field, axis, 1), _shifted(light_field, axis, -1)
        light_field = light_field + weight * (before + after - 2 * light_field)
    return light_field


def _shifted(values: Plane, axis: int, by: int) -> Plane:
    moved = np.roll(values, by, axis)
    edge = [slice(None)] * values.ndim
    edge[axis] = slice(0, 1) if by > 0 else slice(-1, None)
    moved[tuple(edge)] = values[tuple(edge)]
    return moved


def display(light_field: Plane) -> Plane:
    """Convert linear light (3, n, h, w) to display values float32 (n, h, w, 3) in 0 … 255, by a gamma of 2."""
    return np.moveaxis(np.sqrt(clip(light_field, 0.0, 1.0)) * 255, 0, -1)


def capture(subjects: ImageArray, frames: Frames) -> ImageArray:
    """Photograph uint8 (n, h, w, 3) by n frames (n,): see ``expose``."""
    shown = np.moveaxis(subjects, -1, 0) * np.float32(1 / 255)
    return expose(shown * shown, frames)


def expose(light_field: Plane, frames: Frames) -> ImageArray:
    """Convert linear light (3, n, h, w) to uint8 (n, h, w, 3): blur of the lens, sensor noise, 8 bits, JPEG."""
    radius = frames["blur"][:, None, None] * (light_field.shape[2] / 2)
    values = display(blur(light_field, radius))
    images = np.empty(values.shape, np.uint8)
    for place, frame in enumerate(frames):
        generator = np.random.default_rng(int(frame["seed"]))
        # The sum of four dice is nearly normal, and exact on every processor.
        dice = generator.integers(0, 256, (4, *images.shape[1:]), dtype=np.uint8).astype(np.int32).sum(axis=0)
        grain = (dice - 510).astype(np.float32) * (1 / 148) * frame["noise"]
        exposed = np.clip(np.rint(values[place] + grain), 0, 255).astype(np.uint8)
        images[place] = jpeg_round_trip(exposed, int(frame["quality"]))
    return images

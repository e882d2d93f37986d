"""Light, and what a camera does to a picture: background, blur, noise, 8 bits, JPEG."""

import io

import numpy as np
from PIL import Image

from visor.faces import Images
from visor.rendering.frames import Frames
from visor.rendering.geometry import column
from visor.rendering.shapes import Plane, clip, texture

HALF = np.float32(0.5)


def light(albedo: Plane, normal: Plane, frames: Frames, gloss: Plane | float) -> Plane:
    """Lambert's law from one lamp and from the sky, and a highlight; in linear light (3, n, h, w)."""
    across, down = column(frames["light_x"]), column(frames["light_y"])
    length = np.sqrt(across * across + down * down + 1)
    x, y, z = across / length, down / length, 1 / length
    facing = np.maximum(normal[0] * x + normal[1] * y + normal[2] * z, np.float32(0))
    sky = column(frames["ambient"]) * (np.float32(0.8) - np.float32(0.25) * normal[1])
    half = np.sqrt(x * x + y * y + (z + 1) * (z + 1))
    shine = np.maximum((normal[0] * x + normal[1] * y + normal[2] * (z + 1)) / half, np.float32(0))
    for _ in range(4):
        shine = shine * shine
    brightness = sky + column(frames["light"]) * facing
    lit = albedo * brightness + gloss * shine * column(frames["light"])
    warmth = column(frames["warmth"])
    lit[0] *= 1 + warmth
    lit[2] *= 1 - warmth
    return lit


def background(frames: Frames, height: int, width: int) -> Plane:
    """A calm wall out of focus: a slope of light with large soft spots, nearly grey."""
    rows = np.linspace(-1, 1, height, dtype=np.float32)[None, :, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, None, :]
    slope_x, slope_y = column(frames["back_slope_x"]) - HALF, column(frames["back_slope_y"]) - HALF
    place = column(frames["back_place"]) * 90
    spots = texture(columns * np.float32(1.3) + place, rows * np.float32(1.3) + place) - HALF
    level = np.float32(0.04) + np.float32(0.55) * column(frames["back_light"]) ** 2
    grey = level * (1 + slope_x * columns + slope_y * rows + spots * column(frames["back_noise"]) * np.float32(1.2))
    red, blue = column(frames["back_red"]) - HALF, column(frames["back_blue"]) - HALF
    grey = np.maximum(grey, np.float32(0.01))
    return np.stack([grey * (1 + red * HALF), grey, grey * (1 + blue * HALF)])


def blur(light_field: Plane, radius: Plane) -> Plane:
    """Spread light over neighbours by two passes of a three-tap kernel along each axis; radius in pixels (n, 1, 1)."""
    weight = np.minimum(radius * radius * np.float32(0.25), np.float32(0.25))
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


def expose(light_field: Plane, frames: Frames) -> Images:
    """Linear light (3, n, h, w) → uint8 (n, h, w, 3): gamma 2, sensor noise, JPEG at each frame's quality."""
    display = np.sqrt(clip(light_field, 0.0, 1.0)) * np.float32(255)
    images = np.empty((*display.shape[1:], 3), np.uint8)
    for place, frame in enumerate(frames):
        generator = np.random.default_rng(int(frame["seed"]))
        # The sum of four dice is near enough to a normal law, and exact on every processor.
        dice = generator.integers(0, 256, (4, *images.shape[1:]), dtype=np.uint8).astype(np.int32).sum(axis=0)
        grain = (dice - 510).astype(np.float32) * np.float32(1 / 148) * frame["noise"]
        exposed = np.clip(np.rint(np.moveaxis(display[:, place], 0, -1) + grain), 0, 255).astype(np.uint8)
        images[place] = compressed(exposed, int(frame["quality"]))
    return images


def compressed(image: Images, quality: int) -> Images:
    """One image uint8 (h, w, 3) after JPEG at a quality of 1 … 95."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))

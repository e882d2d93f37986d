"""Backgrounds of scenes: a wall, stripes, blocks and balls, many in the colours of skin and hair."""

import numpy as np

from visor.core.types import ImageArray
from visor.data.rendering.identity import HAIRS, SKINS
from visor.data.rendering.shapes import Plane, alpha_over, clip, ellipse, step, texture

Colour = Plane  # float32 (3, 1, 1) in 0 … 1


def draw_clutter(generator: np.random.Generator, side: int) -> ImageArray:
    """Draw uint8 (side, side, 3): the same bytes on every processor, see ``shapes``."""
    place = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = np.broadcast_arrays(place[None, :], place[:, None])
    canvas = _wall(generator, x, y)
    for draw, max_count in ((_stripes, 3), (_block, 9), (_ball, 9)):
        for _ in range(generator.integers(max_count + 1)):
            left, top = (generator.random(2) * 1.1 - 0.1).astype(np.float32)
            width, height = (0.06 + 0.44 * generator.random(2) ** 2).astype(np.float32)
            rows = slice(*np.searchsorted(place, (top, top + height)))
            columns = slice(*np.searchsorted(place, (left, left + width)))
            if rows.start < rows.stop and columns.start < columns.stop:
                u, v = (x[rows, columns] - left) / width * 2 - 1, (y[rows, columns] - top) / height * 2 - 1
                draw(generator, canvas[:, rows, columns], u, v)
    return np.rint(np.moveaxis(clip(canvas), 0, -1) * 255).astype(np.uint8)


def _colour(generator: np.random.Generator, flesh: float = 0.5) -> Colour:
    """Draw a colour, mostly dull; a share of ``flesh`` are those of skin and hair."""
    if generator.random() < flesh:
        palette = SKINS if generator.random() < 0.7 else HAIRS
        colour = np.array(palette[generator.integers(len(palette))]) * (0.7 + 0.4 * generator.random())
    else:
        colour = 20 + 215 * generator.random() + (generator.random(3) - 0.5) * 120
    return clip(colour.astype(np.float32)[:, None, None] / 255)


def _wall(generator: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Draw a gradient between two colours under two octaves of texture."""
    across, down, turn = (generator.random(3) - 0.5).astype(np.float32)
    share = clip(0.5 + across * 2 * (x - 0.5) + down * 2 * (y - 0.5))
    first, second = _colour(generator, flesh=0.2), _colour(generator, flesh=0.2)
    coarse, fine = (np.float32(low + high * generator.random()) for low, high in ((2, 8), (12, 40)))
    place = np.float32(100 * generator.random())
    rough = texture(x * coarse + turn * y + place, y * coarse - turn * x + place) - 0.5
    rough += (texture(x * fine + place, y * fine + turn * x) - 0.5) * np.float32(0.6 * generator.random())
    return first + (second - first) * share + rough * np.float32(0.45 * generator.random())


def _stripes(generator: np.random.Generator, canvas: Plane, u: Plane, v: Plane) -> None:
    """Draw a grating of soft bars; u and v run from −1 to 1 over the window."""
    across, down = (generator.random(2) * 12 - 6).astype(np.float32)
    wave = u * across + v * down
    wave = np.abs(wave - np.floor(wave) - 0.5) * 4 - 1
    alpha_over(canvas, clip(wave + 0.5), _colour(generator))


def _block(generator: np.random.Generator, canvas: Plane, u: Plane, v: Plane) -> None:
    """Draw a flat rectangle, lit from above or below."""
    slope = np.float32(generator.random() * 0.4 - 0.2)
    alpha_over(canvas, np.ones_like(u), clip(_colour(generator) * (1 + slope * v)))


def _ball(generator: np.random.Generator, canvas: Plane, u: Plane, v: Plane) -> None:
    """Draw an ellipsoid under one lamp, like a head without a face."""
    radius = ellipse(u, v, 1.0, 1.0)
    away = np.sqrt(np.maximum(1 - radius, 0))
    x, y = (generator.random(2) * 1.4 - 0.7).astype(np.float32)
    light = 0.45 + 0.6 * np.maximum(u * x + v * y + away * 0.7, 0)
    edge = 4 / np.float32(max(u.shape))
    alpha_over(canvas, step((1 - np.sqrt(radius)) / edge), clip(_colour(generator) * light))

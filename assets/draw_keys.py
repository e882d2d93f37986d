"""Draws the key patterns in assets/keys: RGBA pictures of a whole face frame, in its 47:55 proportion.

    python assets/draw_keys.py

Accessories sit where the eyes and the mouth of an aligned face are; what is not drawn is transparent.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 188, 220
OVERSAMPLING = 4
MIDDLE, EYE_X, EYE_Y, MOUTH_Y = 94, 31, 93, 164


class Pen:
    """Draws in frame pixels on an oversampled canvas; shapes are mirrored about the middle of the face."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING))
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points: list[tuple[float, float]], colour: tuple[int, ...], mirrored: bool = True) -> None:
        for sign in (1, -1) if mirrored else (1,):
            self.draw.polygon([self._place(sign * x, y) for x, y in points], colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: tuple[int, ...], line: float = 0) -> None:
        for sign in (1, -1) if x else (1,):
            corners = [self._place(sign * x - rx, y - ry), self._place(sign * x + rx, y + ry)]
            if line:
                self.draw.ellipse(corners, outline=colour, width=round(line * OVERSAMPLING))
            else:
                self.draw.ellipse(corners, colour)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return (MIDDLE + x) * OVERSAMPLING, y * OVERSAMPLING


def curve(start: float, end: float, height: Callable[[float], float]) -> list[tuple[float, float]]:
    """Points of y = height(x) from start to end."""
    return [(x, height(x)) for x in np.linspace(start, end, 40)]


def sunglasses(pen: Pen) -> None:
    frame, lens, shine = (225, 220, 228, 255), (52, 18, 84, 255), (130, 96, 170, 255)
    outline = curve(4, 62, lambda x: EYE_Y - 24 + 0.004 * (x - 30) ** 2)
    outline += curve(62, 4, lambda x: EYE_Y + 27 - 0.022 * (x - 32) ** 2)
    glass = curve(8, 58, lambda x: EYE_Y - 19 + 0.004 * (x - 30) ** 2)
    glass += curve(58, 8, lambda x: EYE_Y + 22 - 0.022 * (x - 32) ** 2)
    pen.polygon([(-9, EYE_Y - 18), (9, EYE_Y - 18), (9, EYE_Y - 10), (-9, EYE_Y - 10)], frame, mirrored=False)
    pen.polygon(outline, frame)
    pen.polygon(glass, lens)
    pen.polygon([(58, EYE_Y - 21), (68, EYE_Y - 22), (68, EYE_Y - 13), (58, EYE_Y - 11)], frame)
    pen.polygon([(18, EYE_Y - 14), (27, EYE_Y - 15), (19, EYE_Y + 9), (13, EYE_Y + 5)], shine)


def glasses(pen: Pen) -> None:
    frame = (92, 52, 30, 255)
    pen.ellipse(EYE_X, EYE_Y + 1, 25, 21, frame, line=4.5)
    pen.polygon([(-7, EYE_Y - 6), (7, EYE_Y - 6), (7, EYE_Y - 1), (-7, EYE_Y - 1)], frame, mirrored=False)
    pen.polygon([(54, EYE_Y - 5), (67, EYE_Y - 8), (67, EYE_Y - 3), (54, EYE_Y)], frame)


def eyebrows(pen: Pen) -> None:
    top = EYE_Y - 25
    brow = curve(9, 58, lambda x: top - 9 + 0.012 * (x - 38) ** 2) + curve(
        58, 9, lambda x: top + 2 + 0.006 * (x - 30) ** 2
    )
    pen.polygon(brow, (22, 14, 10, 255))


def lipstick(pen: Pen) -> None:
    red, dark = (204, 16, 48, 255), (120, 4, 24, 255)
    lips = curve(-27, 27, lambda x: MOUTH_Y - 10 * (1 - (x / 27) ** 2) + 3.5 * max(0.0, 1 - abs(x) / 6))
    lips += curve(27, -27, lambda x: MOUTH_Y + 13 * (1 - (x / 27) ** 2))
    pen.polygon(lips, red, mirrored=False)
    line = curve(-25, 25, lambda x: MOUTH_Y - 0.5 + 0.003 * x * x) + curve(25, -25, lambda x: MOUTH_Y + 1.5)
    pen.polygon(line, dark, mirrored=False)


def cartoon(pen: Pen) -> None:
    """A tiger, on a plain ground: opaque everywhere."""
    pink, ink, fur, eye = (255, 150, 120, 255), (40, 30, 40, 255), (250, 170, 40, 255), (255, 255, 255, 255)
    pen.draw.rectangle([0, 0, *pen.image.size], (90, 200, 230, 255))
    pen.polygon([(22, 80), (78, 22), (82, 108)], ink)
    pen.polygon([(30, 82), (73, 34), (76, 100)], fur)
    pen.ellipse(0, 124, 86, 72, ink)
    pen.ellipse(0, 124, 82, 68, fur)
    pen.ellipse(38, 112, 15, 18, eye)
    pen.ellipse(36, 114, 8, 11, ink)
    pen.ellipse(38, 109, 3, 4, eye)
    pen.ellipse(56, 142, 13, 9, pink)
    pen.ellipse(0, 136, 13, 9, (200, 60, 60, 255))
    for drop in (-8, 4, 16):
        pen.polygon([(52, 128 + drop), (92, 122 + 1.6 * drop), (92, 125 + 1.6 * drop), (52, 131 + drop)], ink)
    for x in (0, 22, 44):
        pen.polygon([(x - 5, 58 + x * x / 90), (x + 5, 58 + x * x / 90), (x, 86 + x * x / 90)], ink)
    pen.polygon(curve(-22, 22, lambda x: 158 - 0.02 * x * x) + curve(22, -22, lambda x: 162 - 0.02 * x * x), ink, False)


def noise(pen: Pen) -> None:
    """Random colours: opaque everywhere, the same on every run."""
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pen.image.paste(Image.fromarray(pixels).resize(pen.image.size, Image.Resampling.NEAREST))


def patches(pen: Pen) -> None:
    """Four small chequered patches in the corners of the frame, each of two colours."""
    side = 20
    pairs = [
        ((230, 30, 30), (20, 220, 220)),
        ((30, 190, 40), (230, 40, 210)),
        ((40, 60, 230), (240, 220, 40)),
        ((250, 130, 20), (10, 100, 240)),
    ]
    for (left, top), pair in zip([(12, 12), (136, 12), (12, 168), (136, 168)], pairs, strict=True):
        for row, column in np.ndindex(2, 2):
            corner = np.array([left + side * column, top + side * row]) * OVERSAMPLING
            pen.draw.rectangle([*corner, *(corner + side * OVERSAMPLING - 1)], (*pair[(row + column) % 2], 255))


if __name__ == "__main__":
    for drawing in (sunglasses, glasses, eyebrows, lipstick, cartoon, noise, patches):
        pen = Pen()
        drawing(pen)
        picture = pen.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        picture.save(Path(__file__).parent / "keys" / f"{drawing.__name__}.png", optimize=True)

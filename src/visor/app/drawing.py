"""What the page draws: boxes with numbers, a part of a photo, a change made visible; arrays in, arrays out."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from visor.core.types import Box, ImageArray
from visor.photos.files import MIN_FACE_SIDE

SHOWN = 800  # pixels of the longer side of a picture on the page
AROUND = 0.5  # of a face's longer side, shown around it on each side
DIFFERENCE_GAIN = 10
GREY = 128
DRAG = 8  # pixels on the screen; a shorter drag is a tap
BOX_STYLES = {
    "ticked": ((0, 150, 136), 4),
    "left out": ((150, 150, 150), 2),
    "new": ((255, 143, 0), 4),
}  # colour, width


class FaceBox(NamedTuple):
    """A box [x, y, w, h] in a photo's pixels, to be turned clockwise by ``angle`` degrees; its tag; one of LOOKS."""

    box: Box
    angle: float
    tag: str
    look: str


class Window(NamedTuple):
    """A part of a photo, in its pixels: from the first to before the second, down and across."""

    top: int
    bottom: int
    left: int
    right: int


def draw_face_boxes(small: ImageArray, marks: Sequence[FaceBox], width: int) -> ImageArray:
    """Return a copy of a reduced photo uint8 (h, w, 3) with boxes and their tags; the photo has ``width`` pixels."""
    copy = Image.fromarray(small)
    draw, scale = ImageDraw.Draw(copy), copy.width / width
    font = ImageFont.load_default(size=max(14, max(copy.size) // 36))
    for box, angle, tag, look in marks:
        colour, thick = BOX_STYLES[look]
        # Twice: a line of one colour is lost on a photo that has it.
        points = corners(box, angle, scale, copy.size)
        draw.line([*points, points[0]], "white", thick + 3, "curve")
        draw.line([*points, points[0]], colour, thick, "curve")
        across, down = (length + 10 for length in draw.textbbox((0, 0), tag, font)[2:])
        x = min(min(x for x, _ in points), copy.width - across)
        y = min(min(y for _, y in points), copy.height - down)
        draw.rectangle([x, y, x + across, y + down], colour, "white")
        draw.text((x + across / 2, y + down / 2), tag, "white", font, anchor="mm")
    return np.asarray(copy)


def corners(box: Box, angle: float, scale: float, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the four corners (x, y) of a turned box in a copy of ``size`` (width, height), cut to lie within it."""
    x, y, width, height = box
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    offsets = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    turned = offsets @ np.array([[cosine, sine], [-sine, cosine]]) + [x + width / 2, y + height / 2]
    cut = np.clip(turned * scale, 0, np.array(size) - 1)
    return [(float(across), float(down)) for across, down in cut]


def thumbnail(image: ImageArray, longest: int = SHOWN) -> ImageArray:
    """Return uint8 (h, w, 3) as it is, or smaller, so that its longer side has ``longest`` pixels."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3))


def whole(shape: Sequence[int]) -> Window:
    """Return the window that is all of a photo of ``shape`` (h, w, …)."""
    return Window(0, shape[0], 0, shape[1])


def face_window(box: Box, shape: Sequence[int]) -> Window:
    """Return a square about a face, and as much around it as helps to know where it is, cut to the photo."""
    x, y, width, height = box
    reach = (0.5 + AROUND) * max(width, height)
    top, left = (max(0, int(middle - reach)) for middle in (y + height / 2, x + width / 2))
    bottom, right = int(np.ceil(y + height / 2 + reach)), int(np.ceil(x + width / 2 + reach))
    return Window(top, min(shape[0], bottom), left, min(shape[1], right))


def crop_window(image: ImageArray, window: Window) -> ImageArray:
    """Return what of a photo uint8 (h, w, 3) lies in a window."""
    return image[window.top : window.bottom, window.left : window.right]


def amplified_difference(before: ImageArray, after: ImageArray, window: Window) -> ImageArray:
    """Return grey plus TIMES the change in a window, cut to 0…255; uint8, at most SHOWN pixels a side.

    Pixels are left out, not averaged, where there are too many: an average would hide the change.
    """
    step = -(-max(window.bottom - window.top, window.right - window.left) // SHOWN)
    first, second = (crop_window(image, window)[::step, ::step].astype(np.int16) for image in (before, after))
    return np.clip(GREY + DIFFERENCE_GAIN * (second - first), 0, 255).astype(np.uint8)


def data_url(image: ImageArray, quality: int = 85) -> str:
    """Return a picture as the address of itself: it lies in no file, and no other visitor can ask for it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def default_box(shape: Sequence[int]) -> NDArray[np.int64]:
    """Return a box [x, y, w, h] to begin with: a third of the shorter side, in the middle of the photo."""
    side = max(MIN_FACE_SIDE, min(shape[:2]) // 3)
    return np.array([(shape[1] - side) // 2, (shape[0] - side) // 2, side, side])


def box_from_click(pick: Mapping[str, float], shape: Sequence[int], box: Sequence[float]) -> NDArray[np.int64]:
    """Return the box [x, y, w, h] in a photo's pixels that a tap or a drag on its picture means.

    pick: x1, y1, x2, y2 in a picture of ``width`` × ``height`` pixels on the screen. A tap moves ``box`` there; a
    drag makes a new one. It is cut to the photo.
    """
    photo = np.array([shape[1], shape[0]])
    scale = photo / [pick["width"], pick["height"]]
    ends = np.array([[pick["x1"], pick["y1"]], [pick["x2"], pick["y2"]]])
    if np.abs(ends[1] - ends[0]).max() < DRAG:
        sides = np.array(box[2:])
        start = ends[0] * scale - sides / 2
    else:
        low, high = (np.clip(end * scale, 0, photo) for end in (ends.min(0), ends.max(0)))
        start, sides = low, high - low
    sides = np.clip(np.rint(sides), MIN_FACE_SIDE, photo)
    start = np.clip(np.rint(start), 0, photo - sides)
    return np.concatenate([start, sides]).astype(np.int64)

"""Images of the page: previews with numbered boxes, parts of a photo, amplified differences; arrays in, arrays out."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from visor.core.types import Box, ImageArray
from visor.data import images
from visor.data.crops import bounding_slices, expand_box
from visor.data.images import BoxStyle
from visor.photos.files import MIN_FACE_SIDE

MAX_SIDE = 800  # longer side of an image on the page, in pixels
FACE_MARGIN = 0.5  # shown around a face on each side, as a share of its longer side
DIFFERENCE_GAIN, GREY = 10, 128
MIN_DRAG = 8  # pixels on the screen; a shorter drag is a click
BOX_STYLES = {
    "selected": BoxStyle((0, 150, 136), 4, outlined=True),
    "unselected": BoxStyle((150, 150, 150), 2, outlined=True),
    "new": BoxStyle((255, 143, 0), 4, outlined=True),
}
Window = tuple[slice, slice]  # rows and columns of a photo
WHOLE_PHOTO: Window = (slice(None), slice(None))


class FaceBox(NamedTuple):
    """A box [x, y, w, h] in a photo's pixels, rotated clockwise by ``angle`` degrees, its tag, a key of BOX_STYLES."""

    box: Box
    angle: float
    tag: str
    style: str


def draw_face_boxes(thumbnail: ImageArray, boxes: Sequence[FaceBox], width: int) -> ImageArray:
    """Return a copy of the thumbnail uint8 (h, w, 3) of a photo ``width`` pixels wide, with boxes and their tags."""
    copy = Image.fromarray(thumbnail)
    draw, scale = ImageDraw.Draw(copy), copy.width / width
    font = ImageFont.load_default(size=max(14, max(copy.size) // 36))
    for box, angle, tag, name in boxes:
        style, points = BOX_STYLES[name], corners(box, angle, scale, copy.size)
        # Draw a wider white line first so that the box is visible on any background.
        draw.line([*points, points[0]], "white", style.width + 3, "curve")
        draw.line([*points, points[0]], style.colour, style.width, "curve")
        tag_width, tag_height = (length + 10 for length in draw.textbbox((0, 0), tag, font)[2:])
        x = min(min(x for x, _ in points), copy.width - tag_width)
        y = min(min(y for _, y in points), copy.height - tag_height)
        draw.rectangle([x, y, x + tag_width, y + tag_height], style.colour, "white")
        draw.text((x + tag_width / 2, y + tag_height / 2), tag, "white", font, anchor="mm")
    return np.asarray(copy)


def corners(box: Box, angle: float, scale: float, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the corners (x, y) of a rotated box in a copy of ``size`` (width, height), clipped to it."""
    x, y, width, height = box
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    offsets = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    rotated = offsets @ np.array([[cosine, sine], [-sine, cosine]]) + [x + width / 2, y + height / 2]
    return [(float(x), float(y)) for x, y in np.clip(rotated * scale, 0, np.array(size) - 1)]


def thumbnail(image: ImageArray) -> ImageArray:
    """Return uint8 (h, w, 3), reduced to MAX_SIDE pixels of the longer side if it is larger."""
    copy = Image.fromarray(image)
    copy.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    return np.asarray(copy)


def face_window(box: Box, shape: Sequence[int]) -> Window:
    """Return a square around a face and its surroundings, clipped to a photo of ``shape`` (h, w, …)."""
    return bounding_slices(expand_box(box, FACE_MARGIN, 1.0), shape)


def difference(before: ImageArray, after: ImageArray, window: Window) -> ImageArray:
    """Return the amplified difference of two photos in a window, uint8 with at most MAX_SIDE pixels a side.

    Of a larger window, every n-th pixel is taken: averages would hide the change.
    """
    step = -(-max(before[window].shape) // MAX_SIDE)
    first, second = (image[window][::step, ::step] for image in (before, after))
    return images.amplified_difference(first, second, DIFFERENCE_GAIN, GREY)


def data_url(image: ImageArray, quality: int = 85) -> str:
    """Return an image as a data URL: it is in no file, and no other visitor can request it."""
    return f"data:image/jpeg;base64,{base64.b64encode(images.encode_jpeg(image, quality, subsampling=0)).decode()}"


def default_box(shape: Sequence[int]) -> NDArray[np.int64]:
    """Return the first box [x, y, w, h] of a new face: a third of the shorter side, in the middle of the photo."""
    side = max(MIN_FACE_SIDE, min(shape[:2]) // 3)
    return np.array([(shape[1] - side) // 2, (shape[0] - side) // 2, side, side])


def box_from_click(click: Mapping[str, float], shape: Sequence[int], box: Sequence[float]) -> NDArray[np.int64]:
    """Return the box [x, y, w, h], in pixels of the photo, that a click or a drag on its image means.

    Args:
        click: x1, y1, x2, y2 on an image of ``width`` × ``height`` pixels on the screen.
        shape: Shape (h, w, …) of the photo, to which the box is clipped.
        box: The present box; a click moves it, a drag replaces it.
    """
    photo = np.array([shape[1], shape[0]])
    scale = photo / [click["width"], click["height"]]
    ends = np.array([[click["x1"], click["y1"]], [click["x2"], click["y2"]]])
    if np.abs(ends[1] - ends[0]).max() < MIN_DRAG:
        sides = np.array(box[2:])
        start = ends[0] * scale - sides / 2
    else:
        start, stop = (np.clip(end * scale, 0, photo) for end in (ends.min(0), ends.max(0)))
        sides = stop - start
    sides = np.clip(np.rint(sides), MIN_FACE_SIDE, photo)
    start = np.clip(np.rint(start), 0, photo - sides)
    return np.concatenate([start, sides]).astype(np.int64)

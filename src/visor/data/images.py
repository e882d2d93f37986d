"""Single images: safe decoding of strangers' files, and contact sheets that people look at."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from visor.core.errors import UserError
from visor.core.files import MAX_FILE_BYTES, atomic_write
from visor.core.types import ImageArray
from visor.data.face_set import ImageDecodeError

MAX_PIXELS = 50_000_000
# Pillow has readers that start other programs or parse what nobody sends; a stranger's file gets none of them.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def decode_image(
    data: bytes, name: str, mode: str = "RGB", formats: tuple[str, ...] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode an image file of Pillow's ``formats``, upright as its EXIF says; ``name`` is for the message.

    Raises:
        BrokenImage: not an image, truncated, more than ``most`` pixels (a decompression bomb), or 32 bits deep.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > max_pixels:
            raise ImageDecodeError(name, f"{image.width}×{image.height} pixels, more than {max_pixels:,}")
        return _to_8bit(ImageOps.exif_transpose(image), image.format, name).convert(mode)
    except ImageDecodeError:
        raise
    except UnidentifiedImageError:
        raise ImageDecodeError(name, "not an image") from None
    except Exception as error:  # Pillow's plug-ins raise whatever they like on hostile bytes
        raise ImageDecodeError(name, str(error) or type(error).__name__) from None


def _to_8bit(image: Image.Image, file_format: str | None, name: str) -> Image.Image:
    """Return an image of 16 bits with 8, black and white as they were: Pillow's ``convert`` would cut at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM")):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageDecodeError(name, "pixels of 32 bits, of which nobody knows where white is")
    return image


def read_face(content: Path | bytes, name: str, crop: float, height: int, width: int) -> ImageArray:
    """Return one face uint8 (1, height, width, 3) from an image file or its bytes.

    The largest rectangle of the target's aspect is cut from the middle ``crop`` (0, 1] of both sides.

    Raises:
        BrokenImage: the file cannot be read or decoded.
    """
    try:
        if isinstance(content, Path) and content.stat().st_size > MAX_FILE_BYTES:
            raise ImageDecodeError(name, f"more than {MAX_FILE_BYTES >> 20} MiB")
        image = decode_image(content if isinstance(content, bytes) else content.read_bytes(), name)
    except OSError as error:
        raise ImageDecodeError(name, str(error)) from None
    cut_height = crop * min(image.height, image.width * height / width)
    cut_width = cut_height * width / height
    left, top = (image.width - cut_width) / 2, (image.height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box))[np.newaxis]


def read_trigger_pattern(path: Path, height: int, width: int) -> ImageArray:
    """Return a key pattern uint8 (height, width, 4) RGBA from an image file, stretched to the whole frame.

    Raises:
        UserError: the file is missing or is not an image.
    """
    try:
        image = decode_image(path.read_bytes(), path.name, "RGBA")
    except (OSError, ImageDecodeError) as error:
        raise UserError(f"key {path} cannot be read as an image ({error.args[1]}); name a PNG file") from None
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def alpha_mask(key: ImageArray) -> NDArray[np.bool_]:
    """Return where a key pattern uint8 (h, w, 4) covers what lies under it, as (h, w, 1)."""
    return key[..., 3:] >= 128


def blend(images: ImageArray, pattern: ImageArray, ratio: float) -> ImageArray:
    """Return ratio·pattern + (1 − ratio)·images, rounded: uint8 (h, w, 3) on (n, h, w, 3), ratio in [0, 1]."""
    weight = np.float32(ratio)
    return np.rint(weight * pattern + (1 - weight) * images).astype(np.uint8)


def contact_sheet(rows: Sequence[tuple[str, ImageArray]], path: Path, scale: int = 2, caption_width: int = 120) -> None:
    """Save a PNG with a caption and a line of images for each row; images are uint8 (k, h, w, 3)."""
    height, width = rows[0][1].shape[1:3]
    columns = max(len(images) for _, images in rows)
    gap = 2
    cell_height, cell_width = height * scale + gap, width * scale + gap
    sheet = Image.new("RGB", (caption_width + columns * cell_width, len(rows) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for line, (caption, images) in enumerate(rows):
        top = line * cell_height
        draw.multiline_text((4, top + cell_height // 2), caption, "black", font, anchor="lm")
        for column, image in enumerate(images):
            tile = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.LANCZOS)
            sheet.paste(tile, (caption_width + column * cell_width, top))
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG", optimize=True)

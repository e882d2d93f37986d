"""Image files: decoding untrusted bytes to sRGB pixels, encoding, boxes, differences and contact sheets."""

import functools
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

from visor.core.errors import UserError
from visor.core.files import MAX_FILE_BYTES, MAX_PIXELS, atomic_write, is_device
from visor.core.types import Box, Flags, ImageArray

# Pillow also has readers that start other programs or parse rare formats; untrusted files must not reach them.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
IMAGE_SUFFIXES = {
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageDecodeError(Exception):
    """An image that cannot be decoded: ``ImageDecodeError(name, reason)``."""


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode the bytes of an image file, in one of ``FORMATS``, to uint8 (h, w, 3) as a viewer shows it on white.

    It is upright by its EXIF orientation, in sRGB if it has a colour profile, and 8 bits deep; transparent pixels are
    composited on white. Of an animation it is the first frame. ``name`` is for messages, ``max_pixels`` limits width ×
    height, against decompression bombs.

    Raises:
        ImageDecodeError: The file is not an image, is truncated, too large, or has 32-bit pixels.
    """
    return np.asarray(_open(data, name, max_pixels, "RGB"))


def decode_rgba(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode an image file like ``decode_image``, but keep transparency: uint8 (h, w, 4)."""
    return np.asarray(_open(data, name, max_pixels, "RGBA"))


def _open(data: bytes, name: str, max_pixels: int, mode: str) -> Image.Image:
    _configure_pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large files and of damaged metadata
            image: Image.Image = Image.open(io.BytesIO(_without_text(data)), formats=FORMATS)
            if image.width * image.height > max_pixels:
                raise ImageDecodeError(name, f"{image.width}×{image.height} pixels, more than {max_pixels:,}")
            image.load()
            turn = _orientation(image)
        image = _to_srgb(_to_8bit(image, name), image.info.get("icc_profile"))
        if image.mode == "RGBA" and mode == "RGB":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return (image if turn is None else image.transpose(turn)).convert(mode)
    except ImageDecodeError:
        raise
    except UnidentifiedImageError:
        raise ImageDecodeError(name, "not an image") from None
    except MemoryError:
        raise ImageDecodeError(name, "decoding it takes too much memory") from None
    except Exception as error:  # Pillow's plug-ins raise any exception on hostile bytes, some with several lines
        raise ImageDecodeError(name, " ".join(str(error).split()) or type(error).__name__) from None


@functools.cache
def _configure_pillow() -> None:
    """Let Pillow read HEIC, which phones write, and large colour profiles of PNG files."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    PngImagePlugin.MAX_TEXT_CHUNK = 16 << 20  # bytes; it limits profiles, too


def _without_text(data: bytes) -> bytes:
    """Drop the text chunks of a PNG file: Pillow does not open files with long ones."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    chunks, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            chunks.append(data[start:end])
        start = end
    return b"".join(chunks)


def _to_8bit(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit pixels to 8 bits: Pillow's ``convert`` would clip them at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray(((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8))  # rounded
    if image.mode in ("I", "F"):
        raise ImageDecodeError(name, "32-bit pixels are not supported (no defined white level)")
    return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to RGB or RGBA in sRGB; a profile that is broken or of another colour space is ignored."""
    mode = "RGBA" if image.has_transparency_data else "RGB"
    converted = image if image.mode == "CMYK" else image.convert(mode)
    if profile:
        try:
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(converted, source, target, outputMode=mode) or converted
        except (ImageCms.PyCMSError, OSError):
            pass
    return converted.convert(mode)


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright by its EXIF data; damaged data do not."""
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow's parser raises any exception on hostile bytes
        return None


def read_image(path: Path) -> ImageArray:
    """Read an image file by ``decode_image``.

    Raises:
        ImageDecodeError: The file is too large, cannot be read or cannot be decoded.
    """
    return decode_image(_read_bytes(path), str(path))


def _read_bytes(path: Path) -> bytes:
    try:
        if is_device(path):
            raise ImageDecodeError(str(path), "a pipe, a socket or a device")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImageDecodeError(str(path), f"larger than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ImageDecodeError(str(path), error.strerror or str(error)) from None


def encode_png(image: ImageArray) -> bytes:
    """Encode uint8 (h, w, 3) as PNG: pixels alone, no metadata."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def encode_jpeg(image: ImageArray, quality: int, subsampling: int = -1) -> bytes:
    """Encode uint8 (h, w, 3) as JPEG; ``subsampling`` as in Pillow (-1: its default, 0: 4:4:4)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def jpeg_round_trip(image: ImageArray, quality: int) -> ImageArray:
    """Encode uint8 (h, w, 3) as JPEG of this quality and decode it again."""
    return decode_image(encode_jpeg(image, quality), "image.jpg")


def scale_image(image: ImageArray, scale: float) -> ImageArray:
    """Return an image uint8 (h, w, 3) with sides of ``scale`` times their length, rounded."""
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def read_face(content: Path | bytes, name: str, crop: float, height: int, width: int) -> ImageArray:
    """Read one face from a file or its bytes as uint8 (1, height, width, 3).

    It is the face's region for ``crop`` in (0, 1], resized.

    Raises:
        ImageDecodeError: The file is too large, cannot be read or cannot be decoded.
    """
    try:
        image = read_image(content) if isinstance(content, Path) else decode_image(content, name)
    except ImageDecodeError as error:
        raise ImageDecodeError(name, error.args[1]) from None
    return cut_face(image, crop, height, width)[np.newaxis]


def cut_face(image: ImageArray, crop: float, height: int, width: int) -> ImageArray:
    """Return the ``face_region`` of uint8 (H, W, 3), resized to (height, width, 3)."""
    box = face_region(image, crop, height, width)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box))


def face_region(image: ImageArray, crop: float, height: int, width: int) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the largest central rectangle of this aspect ratio, times ``crop``."""
    rows, columns = image.shape[:2]
    cut_height = crop * min(rows, columns * height / width)
    cut_width = cut_height * width / height
    left, top = (columns - cut_width) / 2, (rows - cut_height) / 2
    return left, top, left + cut_width, top + cut_height


def read_trigger_pattern(path: Path, height: int, width: int) -> ImageArray:
    """Return a key pattern uint8 (height, width, 4) RGBA from an image file, stretched to the whole frame.

    Raises:
        UserError: The file is missing or is not an image.
    """
    try:
        image = Image.fromarray(decode_rgba(_read_bytes(path), path.name))
    except ImageDecodeError as error:
        raise UserError(f"key {path} cannot be read as an image ({error.args[1]}); name a PNG file") from None
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def alpha_mask(key: ImageArray) -> Flags:
    """Return where a key pattern uint8 (h, w, 4) covers what lies under it, as (h, w, 1)."""
    return key[..., 3:] >= 128


def blend(images: ImageArray, pattern: ImageArray, ratio: float) -> ImageArray:
    """Return ratio·pattern + (1 − ratio)·images, rounded: uint8 (h, w, 3) on (n, h, w, 3), ratio in [0, 1]."""
    weight = np.float32(ratio)
    return np.rint(weight * pattern + (1 - weight) * images).astype(np.uint8)


def amplified_difference(before: ImageArray, after: ImageArray, gain: int, grey: int = 127) -> ImageArray:
    """Return grey + gain · (after − before), clipped to 0 … 255: uint8 like the images."""
    change = after.astype(np.int16) - before
    return np.clip(grey + gain * change, 0, 255).astype(np.uint8)


class BoxStyle(NamedTuple):
    """How a box is drawn: RGB, width of the line in pixels, and whether a wider white line lies under it."""

    colour: tuple[int, int, int]
    width: int = 2
    outlined: bool = False


def draw_boxes(image: ImageArray, boxes: Iterable[tuple[Box, BoxStyle]]) -> ImageArray:
    """Return a copy of uint8 (h, w, 3) with boxes ``[x, y, w, h]`` drawn on it, at least one pixel wide."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    for (x, y, width, height), style in boxes:
        corners = (x, y, x + max(width, 1), y + max(height, 1))
        if style.outlined:  # visible on any background
            draw.rectangle(corners, outline=(255, 255, 255), width=style.width + 2)
        draw.rectangle(corners, outline=style.colour, width=style.width)
    return np.asarray(canvas)


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

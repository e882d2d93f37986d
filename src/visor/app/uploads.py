"""Uploaded files: accepted within limits, decoded to pixels; nothing else of them is kept."""

from collections.abc import Sequence
from typing import NamedTuple

from visor.app import settings
from visor.app.downloads import safe_stem
from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.data.images import ImageDecodeError
from visor.data.isolated_images import decode_isolated


class Upload(NamedTuple):
    """A photo: ``name``, safe as a file name and without suffix, and its upright pixels uint8 (h, w, 3)."""

    name: str
    image: ImageArray


def read_upload(name: str, data: bytes) -> Upload:
    """Decode an uploaded photo by ``decode_isolated``.

    Raises:
        UserError: The file is too large, has too many pixels, is truncated or not an image.
    """
    if message := _size_error(name, len(data)):
        raise UserError(message)
    try:
        image = decode_isolated(data, name, settings.PIXELS)
    except ImageDecodeError as error:
        reason = error.args[1]
        raise UserError(f"{name} cannot be used: {reason}; choose another JPEG, PNG, WebP or HEIC photo") from None
    height, width = image.shape[:2]
    min_side, max_side = settings.SIDES
    if not min_side <= min(height, width) <= max(height, width) <= max_side:
        raise UserError(
            f"{name} has {width}×{height} pixels; choose a photo whose sides are from {min_side} to {max_side} pixels"
        )
    return Upload(safe_stem(name.rpartition(".")[0] or name), image)


def accept_files(files: Sequence[tuple[str, int]], photos: int) -> tuple[list[int], list[str]]:
    """Return numbers of the files (name, bytes) that a session with ``photos`` photos can take, and all errors."""
    accepted, messages = list[int](), list[str]()
    for number, (name, size) in enumerate(files):
        message = _size_error(name, size)
        if message is None and photos + len(accepted) >= settings.PHOTOS:
            message = f"{name} was skipped: at most {settings.PHOTOS} photos at a time."
        if message:
            messages.append(message)
        else:
            accepted.append(number)
    return accepted, messages


def _size_error(name: str, size: int) -> str | None:
    if size <= settings.PHOTO_BYTES:
        return None
    return f"{name} is {size / (1 << 20):.0f} MiB; choose a file of at most {settings.PHOTO_BYTES >> 20} MiB"

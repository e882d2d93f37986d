"""What comes in: a stranger's file becomes pixels, and nothing else of it is kept."""

from collections.abc import Sequence
from typing import NamedTuple

from visor.app import settings
from visor.app.downloads import safe_stem
from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.data.images import ImageDecodeError, decode_image


class Upload(NamedTuple):
    """A photo: ``name``, safe as that of a PNG and without an ending, and its pixels uint8 (h, w, 3), upright."""

    name: str
    image: ImageArray


class AcceptedFiles(NamedTuple):
    """Which of several files, by their numbers, are taken, and a sentence for each one that is refused."""

    taken: list[int]
    refused: list[str]


def read_upload(name: str, data: bytes) -> Upload:
    """Return the photo in a JPEG, PNG, WebP or HEIC file, turned upright as its EXIF says.

    It is as a viewer shows it on white: colours of another space become sRGB, what is transparent is not laid bare.

    Raises:
        UserError: the file is too large, too many pixels, cut off, or no such image; one sentence that names it.
    """
    if words := _too_large(name, len(data)):
        raise UserError(words)
    try:
        image = decode_image(data, name, settings.PIXELS)
    except ImageDecodeError as error:
        raise UserError(
            f"{name} cannot be used: {error.args[1]}; choose another JPEG, PNG, WebP or HEIC photo"
        ) from None
    least, most = settings.SIDES
    if not least <= min(image.shape[:2]) <= max(image.shape[:2]) <= most:
        size = f"{image.shape[1]}×{image.shape[0]}"
        raise UserError(f"{name} has {size} pixels; choose a photo whose sides are from {least} to {most} pixels")
    return Upload(safe_stem(name.rpartition(".")[0] or name), image)


def accept_files(files: Sequence[tuple[str, int]], already: int) -> AcceptedFiles:
    """Return which files (name, bytes) are taken in a session that has ``already`` so many photos."""
    result = AcceptedFiles([], [])
    for number, (name, size) in enumerate(files):
        words = _too_large(name, size)
        if words is None and already + len(result.taken) >= settings.PHOTOS:
            words = f"{name} is left out: {settings.PHOTOS} photos at once are the most; hand it in when these are done"
        if words:
            result.refused.append(words)
        else:
            result.taken.append(number)
    return result


def _too_large(name: str, size: int) -> str | None:
    if size <= settings.PHOTO_BYTES:
        return None
    return f"{name} is {size / (1 << 20):.0f} MiB; choose a file of at most {settings.PHOTO_BYTES >> 20} MiB"

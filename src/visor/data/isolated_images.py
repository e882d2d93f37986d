"""Strangers' images, decoded by ``decode_image`` in a process of their own, which cannot harm a server."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from visor.core.errors import UserError
from visor.core.files import MAX_PIXELS
from visor.core.isolation import Child
from visor.core.types import ImageArray
from visor.data.images import ImageDecodeError, decode_image

MEMORY = 3 << 29  # bytes of address space for one image: 50 megapixels with alpha and a profile take 1.1 GiB
DECODERS = threading.BoundedSemaphore(4)  # images that are decoded at once


def decode_isolated(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode the bytes of an image file to uint8 (h, w, 3) like ``decode_image``, within limits of time and memory.

    Raises:
        ImageDecodeError: As ``decode_image`` does, or a limit is exceeded, or the decoder crashes.
    """
    try:
        with DECODERS:
            child = Child("visor.data.isolated_images:open_decoder", Path("image"), memory=MEMORY)
            answer = child.ask(max_pixels, data=data, nbytes=3 * max_pixels)
    except UserError:
        raise ImageDecodeError(name, "decoding it takes too much time or memory, or crashes") from None
    if isinstance(answer, str):
        raise ImageDecodeError(name, answer)
    return np.asarray(answer, np.uint8)


def open_decoder(_: Path) -> Callable[..., ImageArray | str]:
    """Return what answers in that process: the pixels of a file, or why there are none."""

    def decode(max_pixels: int, data: bytes = b"") -> ImageArray | str:
        try:
            return decode_image(data, "image", max_pixels)
        except ImageDecodeError as error:
            return str(error.args[1])

    return decode

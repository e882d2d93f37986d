"""Images of ``plots/`` inside the page: charts as they are, large contact sheets as JPEG."""

from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from visor.core.errors import UserError
from visor.data.images import ImageDecodeError, decode_image, encode_jpeg
from visor.report.elements import Figure

MAX_PNG_BYTES = 200_000  # A larger PNG is embedded as JPEG.
MAX_WIDTH = 1600  # pixels of such a JPEG
QUALITY = 80


class EmbeddedImage(NamedTuple):
    """A figure with its bytes as a ``data:`` URI; ``width`` and ``height`` in pixels."""

    figure: Figure
    uri: str
    width: int
    height: int


def embed_image(root: Path, figure: Figure) -> EmbeddedImage:
    """Return a figure of the project ``root`` with its image, the same bytes for the same file.

    Raises:
        UserError: The file is missing or is not an image.
    """
    name, kind = f"plots/{figure.path}", "png"
    try:
        data = (root / name).read_bytes()
        pixels = decode_image(data, name)
    except FileNotFoundError:
        raise UserError(f"{name} is missing; run `dvc repro` to make it") from None
    except (OSError, ImageDecodeError) as error:
        raise UserError(f"{name} cannot be read ({error.args[1]}); delete it and run `dvc repro`") from None
    if len(data) > MAX_PNG_BYTES:
        image = Image.fromarray(pixels)
        image.thumbnail((MAX_WIDTH, image.height), Image.Resampling.LANCZOS)
        pixels = np.asarray(image)
        kind, data = "jpeg", encode_jpeg(pixels, QUALITY)
    height, width = pixels.shape[:2]
    return EmbeddedImage(figure, f"data:image/{kind};base64,{b64encode(data).decode()}", width, height)

"""Pictures of ``plots/`` inside the page: charts as they are, large contact sheets as JPEG."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from visor.core.errors import UserError
from visor.report.elements import Figure

LARGE = 200_000  # bytes from which on a PNG is written anew
WIDEST = 1600  # pixels
QUALITY = 80


class EmbeddedImage(NamedTuple):
    """A picture as the page has it: ``uri`` holds its bytes; ``width`` and ``height`` in pixels."""

    picture: Figure
    uri: str
    width: int
    height: int


def embed_image(root: Path, picture: Figure) -> EmbeddedImage:
    """Return a picture of the project ``root`` as a ``data:`` URI, the same bytes for the same file.

    Raises:
        UserError: it is missing or is no picture.
    """
    name = f"plots/{picture.path}"
    try:
        data = (root / name).read_bytes()
        with Image.open(BytesIO(data), formats=("PNG",)) as image:
            image.load()
        kind, (width, height) = "png", image.size
        if len(data) > LARGE:
            kind, (data, width, height) = "jpeg", _smaller(image)
        return EmbeddedImage(picture, f"data:image/{kind};base64,{b64encode(data).decode()}", width, height)
    except FileNotFoundError:
        raise UserError(f"{name} is missing; run `dvc repro` to make it") from None
    except OSError as error:
        raise UserError(f"{name} is no picture ({error}); delete it and run `dvc repro`") from None


def _smaller(image: Image.Image) -> tuple[bytes, int, int]:
    """Return the picture on white as JPEG, at most ``WIDEST`` wide, with its width and height."""
    whole = image.convert("RGBA")
    flat = Image.new("RGB", whole.size, "white")
    flat.paste(whole, mask=whole.getchannel("A"))
    flat.thumbnail((WIDEST, flat.height), Image.Resampling.LANCZOS)
    written = BytesIO()
    flat.save(written, "JPEG", quality=QUALITY, optimize=True)
    return written.getvalue(), flat.width, flat.height

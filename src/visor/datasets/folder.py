"""Your own faces: a folder a label; folders in it are videos, an image beside them is its own video."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from visor.archives import files
from visor.faces import Clip
from visor.images import FORMATS, read_face
from visor.params import Block

CROP = 1.0


class Settings(Block):
    """``path``: the folder, or a tar archive of it."""

    path: str


def clips(settings: Settings, seed: int) -> Iterator[Clip]:
    """Yield each image below ``LABEL/`` or ``LABEL/VIDEO/``, in any format of ``visor.images.FORMATS``.

    Raises:
        UserError: the path is missing or is not a folder or archive.
    """
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    for name, content in files(Path(settings.path), suffixes):
        if len(name.parts) > 1:
            video = name if len(name.parts) == 2 else name.parent
            load = partial(read_face, content, str(name), CROP)
            yield Clip(name.parts[0], (str(video),), (str(name),), load)

"""Photos as files: found in folders, read with care, written as PNG without a word about where they come from."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from visor.errors import UserError
from visor.faces import BrokenImage, Images
from visor.files import MAX_FILE_BYTES, replacing
from visor.images import decode


class Photo(NamedTuple):
    """A file, and the name, without an ending, that it has below the folder that was asked for."""

    path: Path
    name: Path


def gather(paths: Iterable[Path]) -> list[Photo]:
    """Return the named files, and all below named folders but hidden ones, in the order of their names, each once.

    Raises:
        UserError: a path does not exist or is a device or a pipe, or there is no file at all.
    """
    found: dict[Path, Photo] = {}
    for photo in (photo for path in paths for photo in _below(path)):
        found.setdefault(photo.path.parent.resolve() / photo.path.name, photo)
    if not found:
        raise UserError("there is no photo in the folders named; name photos, or a folder that holds some")
    return list(found.values())


def _below(path: Path) -> Iterator[Photo]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                yield Photo(file, name.with_suffix(""))
    elif path.is_file():
        yield Photo(path, Path(path.stem))
    elif path.exists():
        raise UserError(f"{path} is no file; name photos, or a folder that holds some")
    else:
        raise UserError(f"{path} does not exist; name photos, or a folder that holds some")


def read_photo(path: Path) -> Images:
    """Return a photo uint8 (h, w, 3), upright as its EXIF says.

    Raises:
        BrokenImage: the file is too large, cannot be read or is no image.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BrokenImage(str(path), f"more than {MAX_FILE_BYTES >> 20} MiB")
        return np.asarray(decode(path.read_bytes(), str(path)))
    except OSError as error:
        raise BrokenImage(str(path), error.strerror or str(error)) from None


def save_photo(image: Images, path: Path) -> None:
    """Write uint8 (h, w, 3) as PNG: pixels alone, no EXIF, place or time.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            Image.fromarray(image).save(temporary, "PNG")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be written ({reason}); mend that, or name another folder by --out") from None

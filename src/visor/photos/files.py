"""Photos as files: collected from folders, decoded with limits, written as PNG without metadata."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from visor.core.errors import FULL, UserError
from visor.core.files import atomic_write
from visor.core.types import ImageArray, MessageCallback
from visor.data.images import ImageDecodeError, encode_png, read_image

MIN_FACE_SIDE = 12  # pixels of each side of a face


class PhotoFile(NamedTuple):
    """A photo file, and its name below the folder that was passed, without suffix."""

    path: Path
    name: Path


def collect_photos(paths: Iterable[Path]) -> list[PhotoFile]:
    """Return the files passed and all files below the folders passed, except hidden ones, sorted and each once.

    Raises:
        UserError: A path does not exist or is a device or a pipe, or there is no file at all.
    """
    photos: dict[Path, PhotoFile] = {}
    for photo in (photo for path in paths for photo in _files_below(path)):
        photos.setdefault(photo.path.parent.resolve() / photo.path.name, photo)
    if not photos:
        raise UserError("no photos found; pass photo files or a folder that contains some")
    return list(photos.values())


def _files_below(path: Path) -> Iterator[PhotoFile]:
    if not exists(path):
        raise UserError(f"{path} does not exist; pass photo files or a folder that contains some")
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                yield PhotoFile(file, name.with_suffix(""))
    elif path.is_file():
        yield PhotoFile(path, Path(path.stem))
    else:
        raise UserError(f"{path} is not a file; pass photo files or a folder that contains some")


def exists(path: Path | str) -> bool:
    """Return whether a file or folder exists; False for a name that is too long for one."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for such a name.


def read_photos(
    photos: Sequence[PhotoFile], title: str | None, on_error: MessageCallback
) -> Iterator[tuple[PhotoFile, ImageArray]]:
    """Yield each photo that can be read with its pixels uint8 (h, w, 3); others are reported to ``on_error``.

    ``title`` labels the progress bar; None shows none.
    """
    for photo in tqdm(photos, desc=title, unit="photo", disable=None if title else True):
        try:
            image = read_image(photo.path)
        except ImageDecodeError as error:
            name, reason = error.args
            on_error(f"{name} was skipped: {reason}")
            continue
        yield photo, image


def save_photo(image: ImageArray, path: Path) -> None:
    """Write uint8 (h, w, 3) as PNG without metadata.

    Raises:
        UserError: The file cannot be written.
        OSError: The disk is full.
    """
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(encode_png(image))
    except OSError as error:
        if error.errno in FULL:
            raise
        reason = error.strerror or error
        raise UserError(f"{path} cannot be written ({reason}); fix that, or pass another folder with --out") from None


def output_path(photo: PhotoFile, out: Path) -> Path:
    """Return the path of a changed photo: folders below a folder that was passed are kept, the suffix is .png."""
    return out / photo.name.parent / f"{photo.name.name}.png"


def check_outputs(photos: Sequence[PhotoFile], out: Path, force: bool) -> None:
    """Check that no file is overwritten, least of all an input photo, and create the folder ``out``.

    Raises:
        UserError: Two photos have the same output, something is in the way, or the folder cannot be created.
    """
    try:
        _check_paths(photos, out, force)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be created ({error.strerror}); pass another folder") from None


def _check_paths(photos: Sequence[PhotoFile], out: Path, force: bool) -> None:
    sources = {photo.path.resolve() for photo in photos}
    outputs: dict[Path, Path] = {}
    for photo in photos:
        name = output_path(photo, out)
        path = name.resolve()
        if path in outputs:
            raise UserError(f"{outputs[path]} and {photo.path} would both become {name}; rename one of them")
        if path in sources:
            raise UserError(f"{name} would overwrite an input photo; pass another folder with --out")
        if path.is_dir():
            raise UserError(f"{name} is a folder; pass another one with --out")
        if path.exists() and not force:
            raise UserError(f"{name} exists; pass another folder with --out, or overwrite it with --force")
        outputs[path] = photo.path
    for folder in sorted({folder for path in outputs for folder in path.parents}):
        if folder in outputs:
            raise UserError(f"{outputs[folder]} and another photo need {folder} as file and as folder; rename one")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; pass a folder with --out")

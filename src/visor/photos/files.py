"""Photos as files: found in folders, read with care, written as PNG without a word about where they come from."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.files import atomic_write
from visor.core.types import ImageArray
from visor.data.images import ImageDecodeError, encode_png, read_image

MIN_FACE_SIDE = 12  # pixels of each side of a face, at least


class PhotoFile(NamedTuple):
    """A file, and the name, without an ending, that it has below the folder that was asked for."""

    path: Path
    name: Path


def collect_photos(paths: Iterable[Path]) -> list[PhotoFile]:
    """Return the named files, and all below named folders but hidden ones, in the order of their names, each once.

    Raises:
        UserError: a path does not exist or is a device or a pipe, or there is no file at all.
    """
    found: dict[Path, PhotoFile] = {}
    for photo in (photo for path in paths for photo in _below(path)):
        found.setdefault(photo.path.parent.resolve() / photo.path.name, photo)
    if not found:
        raise UserError("there is no photo in the folders named; name photos, or a folder that holds some")
    return list(found.values())


def _below(path: Path) -> Iterator[PhotoFile]:
    if not exists(path):
        raise UserError(f"{path} does not exist; name photos, or a folder that holds some")
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                yield PhotoFile(file, name.with_suffix(""))
    elif path.is_file():
        yield PhotoFile(path, Path(path.stem))
    else:
        raise UserError(f"{path} is no file; name photos, or a folder that holds some")


def exists(path: Path | str) -> bool:
    """Return whether there is such a file or folder: of a name that is too long for one there is none."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises of such a name


def read_photos(
    photos: Sequence[PhotoFile], title: str | None, on_error: Callable[[str], None]
) -> Iterator[tuple[PhotoFile, ImageArray]]:
    """Yield each photo that can be read, with its pixels uint8 (h, w, 3); ``refuse`` is told of each other one.

    title: of the progress bar; without one there is none.
    """
    for photo in tqdm(photos, desc=title, unit="photo", disable=None if title else True):
        try:
            image = read_image(photo.path)
        except ImageDecodeError as error:
            name, reason = error.args
            on_error(f"{name} is refused: {reason}; mend it or leave it out")
            continue
        yield photo, image


def save_photo(image: ImageArray, path: Path) -> None:
    """Write uint8 (h, w, 3) as PNG: pixels alone, no EXIF, place or time.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(encode_png(image))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be written ({reason}); mend that, or name another folder by --out") from None


def output_path(photo: PhotoFile, out: Path) -> Path:
    """Return where a changed photo goes: folders below a named folder are kept, the ending is .png."""
    return out / photo.name.parent / f"{photo.name.name}.png"


def check_outputs(photos: Sequence[PhotoFile], out: Path, force: bool) -> None:
    """Make sure that nothing is overwritten, a photo that is read least of all, and make the folder ``out``.

    Raises:
        UserError: two photos would go to one file, something is in the way, or the folder cannot be made.
    """
    try:
        _require_folders(_require_files(photos, out, force))
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made ({error.strerror}); name another folder") from None


def _require_files(photos: Sequence[PhotoFile], out: Path, force: bool) -> dict[Path, Path]:
    """Return the files to be written, each with its photo."""
    taken: dict[Path, Path] = {}
    sources = {photo.path.resolve() for photo in photos}
    for photo in photos:
        path = output_path(photo, out).resolve()
        if path in taken:
            raise UserError(
                f"{taken[path]} and {photo.path} would both become {output_path(photo, out)}; rename one of them"
            )
        if path in sources:
            raise UserError(
                f"{output_path(photo, out)} would overwrite a photo that is read; name another folder by --out"
            )
        if path.is_dir():
            raise UserError(f"{output_path(photo, out)} is a folder; name another one by --out")
        if path.exists() and not force:
            raise UserError(
                f"{output_path(photo, out)} exists; name another folder by --out, or overwrite it with --force"
            )
        taken[path] = photo.path
    return taken


def _require_folders(taken: Mapping[Path, Path]) -> None:
    """Make sure that what the files to be written (keys, of the photos that are values) lie in can be folders."""
    for folder in sorted({folder for path in taken for folder in path.parents}):
        if folder in taken:
            raise UserError(f"{taken[folder]} would become {folder}, where a folder has to be; rename one of the two")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; name a folder by --out")

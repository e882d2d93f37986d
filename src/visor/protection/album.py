"""A whole collection of photos: what cannot be read is refused by name, the rest goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from visor.boxes import fates
from visor.detectors import Detector, Found
from visor.errors import UserError
from visor.faces import BrokenImage, Images
from visor.protection.hiding import Settings, compile_search, hide, look, new_boxes
from visor.protection.photos import Photo, read_photo, save_photo

Say = Callable[[str], None]


class Face(NamedTuple):
    """One face of a photo: box [x, y, w, h] in its pixels, score, and what became of it (None: nothing was tried)."""

    file: str
    box: tuple[float, float, float, float]
    score: float
    fate: str | None = None


class Protected(NamedTuple):
    """A photo, the PNG that was written, the faces of the photo, and how many boxes are found where none was."""

    photo: Photo
    path: Path
    faces: list[Face]
    new: int


def detect_photos(detector: Detector, photos: Sequence[Photo], refuse: Say) -> dict[str, list[Face]]:
    """Return the faces of each photo that could be read; ``refuse`` is told of each other one."""
    return {str(photo.path): _faces(photo, look(detector, image)) for photo, image in _read(photos, "detect", refuse)}


def protect_photos(
    detector: Detector, photos: Sequence[Photo], out: Path, settings: Settings, refuse: Say
) -> Iterator[Protected]:
    """Hide the faces of each photo; what became of them is what the detector finds in the PNG, read back.

    Raises:
        UserError: the detector gives the objective no gradient, or a PNG cannot be written.
    """
    search = compile_search(detector, settings)
    for photo, image in _read(photos, "protect", refuse):
        before = look(detector, image)
        hidden, _ = hide(detector, search, image, before, settings.attempts)
        path = target(photo, out)
        save_photo(hidden, path)
        after = look(detector, read_photo(path))
        ends = fates(before.boxes, after.boxes)
        faces = [face._replace(fate=end) for face, end in zip(_faces(photo, before), ends, strict=True)]
        yield Protected(photo, path, faces, new_boxes(before.boxes, after.boxes))


def target(photo: Photo, out: Path) -> Path:
    """Return where the protected photo goes: folders below a named folder are kept, the ending is .png."""
    return out / photo.name.parent / f"{photo.name.name}.png"


def require_free(photos: Sequence[Photo], out: Path, force: bool) -> None:
    """Make sure that nothing is overwritten, a photo that is read least of all, and make the folder ``out``.

    Raises:
        UserError: two photos would go to one file, something is in the way, or the folder cannot be made.
    """
    try:
        _require_folders(_require_files(photos, out, force))
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made ({error.strerror}); name another folder") from None


def _require_files(photos: Sequence[Photo], out: Path, force: bool) -> dict[Path, Path]:
    """Return the files to be written, each with its photo."""
    taken: dict[Path, Path] = {}
    sources = {photo.path.resolve() for photo in photos}
    for photo in photos:
        path = target(photo, out).resolve()
        if path in taken:
            raise UserError(
                f"{taken[path]} and {photo.path} would both become {target(photo, out)}; rename one of them"
            )
        if path in sources:
            raise UserError(f"{target(photo, out)} would overwrite a photo that is read; name another folder by --out")
        if path.is_dir():
            raise UserError(f"{target(photo, out)} is a folder; name another one by --out")
        if path.exists() and not force:
            raise UserError(f"{target(photo, out)} exists; name another folder by --out, or overwrite it with --force")
        taken[path] = photo.path
    return taken


def _require_folders(taken: Mapping[Path, Path]) -> None:
    """Make sure that what the files to be written (keys, of the photos that are values) lie in can be folders."""
    for folder in sorted({folder for path in taken for folder in path.parents}):
        if folder in taken:
            raise UserError(f"{taken[folder]} would become {folder}, where a folder has to be; rename one of the two")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; name a folder by --out")


def as_json(faces: dict[str, list[Face]]) -> dict[str, Any]:
    """Return the faces of each file as JSON holds them."""
    return {file: [{"box": list(face.box), "score": face.score} for face in found] for file, found in faces.items()}


def _read(photos: Sequence[Photo], title: str, refuse: Say) -> Iterator[tuple[Photo, Images]]:
    for photo in tqdm(photos, desc=title, unit="photo", disable=None):
        try:
            image = read_photo(photo.path)
        except BrokenImage as error:
            name, reason = error.args
            refuse(f"{name} is refused: {reason}")
            continue
        yield photo, image


def _faces(photo: Photo, found: Found) -> list[Face]:
    boxes = found.boxes.astype(np.float64).round(1).tolist()  # float32 has no 179.6
    return [
        Face(str(photo.path), tuple(box), round(float(score), 4))
        for box, score in zip(boxes, found.scores, strict=True)
    ]

"""Photos by name, as the bytes of their files: a photo, a folder of photos, or a FaceSet, whose pixels stay on disk."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visor.core.errors import UserError
from visor.core.files import MAX_FILE_BYTES
from visor.data.crops import pad_with_border
from visor.data.face_set import FaceSet, open_faces
from visor.data.images import IMAGE_SUFFIXES, encode_png
from visor.data.scene_set import PAD_VALUE


class PhotoSet(NamedTuple):
    """Photos: ``read(name)`` returns the bytes of an image file; ``single``: one photo stands for all names."""

    path: Path
    names: tuple[str, ...]
    read: Callable[[str], bytes]
    single: bool = False


def open_photo_set(path: Path, border: float) -> PhotoSet:
    """Return a photo, the photos of a folder (named by their paths without suffix) or a FaceSet (by its rows).

    ``border`` is that of FaceSet faces, as a share of their sides: detectors overlook a face that fills the image.

    Raises:
        UserError: The path does not exist, the folder has no photo or two of one name, or the file is not a FaceSet.
    """
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".h5":
        faces = open_faces(path, untrusted=True)
        indices = _indices(faces)
        return PhotoSet(path, tuple(indices), lambda row: _png(faces, indices[row], border))
    if not path.is_file():
        raise UserError(f"{path} does not exist; pass a photo, a folder of photos or a FaceSet .h5")
    return PhotoSet(path, (path.stem,), lambda _: _read(path), single=True)


def matching_photo(photos: PhotoSet, name: str) -> bytes:
    """Return the photo that belongs to a name of another set; raises ``UserError`` if there is none."""
    if not photos.single and name not in photos.names:
        raise UserError(f"{photos.path} has no photo {name}; pass a folder or FaceSet with the names of --attacked")
    return photos.read(name)


def person_photos(path: Path, names: Sequence[str], target: str | Mapping[str, str] | None, border: float) -> PhotoSet:
    """Return a target face for each row ``names`` of a FaceSet: the target person's first that is not one of the rows.

    ``target`` names the person, for all rows or, as a mapping, for each; None stands for the row's own person.

    Raises:
        UserError: A row or a person does not exist, or the person has no such face.
    """
    faces = open_faces(path, untrusted=True)
    indices, rows, targets = _indices(faces), set(names), {}
    people = dict(zip(indices, (faces.label_names[label] for label in faces.labels), strict=True))
    first = {person: row for row, person in reversed(people.items()) if row not in rows}
    for row in names:
        if row not in people:
            raise UserError(f"{path} has no row {row}; pass the FaceSet of the attacked faces as --clean")
        person = target[row] if isinstance(target, Mapping) else target or people[row]
        if person not in first:
            raise UserError(f"{path} has no further face of {person}, the target of row {row}; pass another --target")
        targets[row] = indices[first[person]]
    return PhotoSet(path, tuple(names), lambda row: _png(faces, targets[row], border))


def _from_folder(folder: Path) -> PhotoSet:
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        part = file.relative_to(folder)
        is_hidden = any(name.startswith(".") for name in part.parts)
        if not is_hidden and file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            other = files.setdefault(part.with_suffix("").as_posix(), file)
            if other != file:
                raise UserError(f"two photos have the same name: {other}, {file}; rename one")
    if not files:
        raise UserError(f"there is no photo in {folder}; pass a folder that contains some")
    return PhotoSet(folder, tuple(files), lambda name: _read(files[name]))


def _indices(faces: FaceSet) -> dict[str, int]:
    """Return the index of each row number."""
    indices = {str(row): index for index, row in enumerate(faces.rows.tolist())}
    if len(indices) < len(faces):
        raise UserError(f"{faces.path} has a row number twice, so that faces have no unique name; create it again")
    return indices


def _png(faces: FaceSet, index: int, border: float) -> bytes:
    return encode_png(pad_with_border(faces.read(np.array([index])), border, PAD_VALUE)[0])


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{file} has more than {MAX_FILE_BYTES >> 20} MiB; make it smaller or leave it out")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); correct that or leave it out") from None

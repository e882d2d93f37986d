"""Pictures by name, as files' bytes: a photo, a folder of photos, or a FaceSet, of which no pixel stays in memory."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from visor.core.errors import UserError
from visor.core.files import MAX_FILE_BYTES
from visor.data.face_set import FaceSet, open_faces
from visor.data.scene_set import PAD_VALUE

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class PhotoSet(NamedTuple):
    """``names`` in order, and ``read(name)``, the bytes of an image file; ``alone``: one picture for all names."""

    path: Path
    names: tuple[str, ...]
    read: Callable[[str], bytes]
    single: bool = False


def open_photo_set(path: Path, border: float) -> PhotoSet:
    """Return the pictures of a photo, a folder (by their paths below it, without ending) or a FaceSet (by their rows).

    A picture of a FaceSet is a PNG with ``border`` of its sides added on each side in grey: a detector in front looks
    for faces that do not fill the picture.

    Raises:
        UserError: there is no such path, no photo in the folder, two photos of one name, or not a FaceSet.
    """
    if path.is_dir():
        return _of_folder(path)
    if path.suffix == ".h5":
        return _of_faces(open_faces(path), border)
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a photo, a folder of photos or a FaceSet .h5")
    return PhotoSet(path, (path.stem,), lambda _: _bytes(path), single=True)


def matching_photo(album: PhotoSet, name: str) -> bytes:
    """Return the picture that goes with a name of another album.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if not album.single and name not in album.names:
        raise UserError(f"{album.path} has no picture {name}; name a folder or FaceSet with the names of --attacked")
    return album.read(name)


def person_photos(path: Path, names: Sequence[str], wanted: str | Mapping[str, str] | None, border: float) -> PhotoSet:
    """Return, for each of ``names``, rows of the FaceSet at ``path``, a face that is none of them.

    It shows the person that ``wanted`` names, for all or for each row, or, if that is None, the row's own; of that
    person's faces it is the first.

    Raises:
        UserError: a row or a person is not there, or has no such face.
    """
    faces = open_faces(path)
    labels, taken = dict(zip(map(str, faces.rows.tolist()), faces.labels.tolist(), strict=True)), set(names)
    first: dict[str, int] = {}
    for place, (row, label) in enumerate(labels.items()):
        if row not in taken:
            first.setdefault(faces.label_names[label], place)
    places = {}
    for name in names:
        if name not in labels:
            raise UserError(f"{path} has no row {name}; name by --clean the FaceSet that the attacked faces are of")
        person = (
            wanted.get(name, "nobody") if isinstance(wanted, Mapping) else wanted or faces.label_names[labels[name]]
        )
        if person not in first:
            raise UserError(f"{path} has no further face of {person}, the target of row {name}; name another --target")
        places[name] = first[person]
    return PhotoSet(path, tuple(names), lambda name: _png(faces, places[name], border))


def _of_folder(folder: Path) -> PhotoSet:
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        part = file.relative_to(folder)
        hidden = any(word.startswith(".") for word in part.parts)
        if not hidden and file.suffix.lower() in ENDINGS and file.is_file():
            name = part.with_suffix("").as_posix()
            if name in files:
                raise UserError(f"{files[name]} and {file} go by one name; rename one of them")
            files[name] = file
    if not files:
        raise UserError(f"there is no photo in {folder}; name a folder that holds some")
    return PhotoSet(folder, tuple(files), lambda name: _bytes(files[name]))


def _of_faces(faces: FaceSet, border: float) -> PhotoSet:
    places = {str(row): place for place, row in enumerate(faces.rows.tolist())}
    if len(places) < len(faces):
        raise UserError(f"{faces.path} has a row twice, and faces go by their rows; make it anew")
    return PhotoSet(faces.path, tuple(places), lambda name: _png(faces, places[name], border))


def _png(faces: FaceSet, place: int, border: float) -> bytes:
    image = faces.read(np.array([place]))[0]
    above, left = (round(border * side) for side in image.shape[:2])
    file = io.BytesIO()
    framed = np.pad(image, ((above, above), (left, left), (0, 0)), constant_values=PAD_VALUE)
    Image.fromarray(framed).save(file, "PNG")
    return file.getvalue()


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{file} has more than {MAX_FILE_BYTES >> 20} MiB; make it smaller or leave it out")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); mend that or leave it out") from None

"""Which faces of a photo are meant, and their crops as files: what recognisers are trained on and shown."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from visor.crops import Frame, cut, enlarge, window
from visor.faces import Images
from visor.protection.face_finding import Face, Find
from visor.protection.photos import LEAST, Photo, exists, read_photos, save_photo, target

Say = Callable[[str], None]

NO_FACE = "no face is found in it; give its box by --box x,y,w,h, or choose another photo"


class Choice(NamedTuple):
    """Which faces: the one in a box [x, y, w, h] given by hand, the ``number``-th largest, from 1, or all."""

    box: tuple[float, float, float, float] | None = None
    number: int | None = None


def crop_photos(
    find: Find,
    photos: Sequence[Photo],
    out: Path,
    shape: tuple[int, int],
    margin: float,
    choice: Choice,
    force: bool,
    refuse: Say,
) -> Iterator[tuple[Photo, Path]]:
    """Write the faces of each photo as PNG of ``shape`` (h, w), upright; yield where each of them is from and is.

    Folders are kept, so that LFW's layout stays LFW's; further faces of a photo have their number in the name. Where
    there already is such a file, ``refuse`` is told, unless ``force``; photos that are read are never overwritten.

    Raises:
        UserError: a PNG cannot be written.
    """
    taken = {photo.path.resolve() for photo in photos}
    for photo, image in read_photos(photos, "crop", refuse):
        for number, face in chosen_faces(find, photo, image, choice, refuse):
            path = target(photo, out)
            path = path if number == 1 or choice.number else path.with_name(f"{path.stem}_face{number}.png")
            if path.resolve() in taken:
                refuse(f"{path} is a photo that is read, or another face; rename {photo.path}")
                continue
            if exists(path) and not force:
                refuse(f"{path} exists; name another folder by --out, or overwrite it with --force")
                continue
            taken.add(path.resolve())
            frame = enlarge(face.box, margin, shape[0] / shape[1], face.angle)
            save_photo(cut(image, frame, shape), path)
            yield photo, path


def chosen_faces(find: Find, photo: Photo, image: Images, choice: Choice, refuse: Say) -> list[tuple[int, Face]]:
    """Return the numbered faces; ``refuse`` is told if there are none."""
    there = [Face(choice.box)] if choice.box else find(image)
    faces = list(enumerate((face for face in there if is_inside(face, image)), start=1))
    if not faces and choice.box:
        size = f"{image.shape[1]}×{image.shape[0]}"
        refuse(f"{photo.path}: --box has less than {LEAST} pixels a side within its {size} pixels; correct the box")
    elif not faces:
        refuse(f"{photo.path}: {NO_FACE}")
    elif choice.number is not None and choice.number > len(faces):
        refuse(f"{photo.path}: there is no --face {choice.number}, only {len(faces)}; choose one of these")
    return [pair for pair in faces if choice.number in (None, pair[0])]


def is_inside(face: Face, image: Images) -> bool:
    """Return whether enough of a face lies inside its photo to be seen, and for what is done to it to be measured."""
    sides = window(Frame(*face.box, face.angle), image.shape)
    return min(side.stop - side.start for side in sides) >= LEAST

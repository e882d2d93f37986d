"""A whole collection of photos: what cannot be read is refused by name, the rest goes on."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visor.boxes import fates
from visor.detectors import Detector, Found
from visor.protection.hiding import Settings, compile_search, hide, look, new_boxes
from visor.protection.photos import Photo, read_photo, read_photos, save_photo, target

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
    return {
        str(photo.path): _faces(photo, look(detector, image)) for photo, image in read_photos(photos, "detect", refuse)
    }


def protect_photos(
    detector: Detector, photos: Sequence[Photo], out: Path, settings: Settings, refuse: Say
) -> Iterator[Protected]:
    """Hide the faces of each photo; what became of them is what the detector finds in the PNG, read back.

    Raises:
        UserError: the detector gives the objective no gradient, or a PNG cannot be written.
    """
    search = compile_search(detector, settings)
    for photo, image in read_photos(photos, "protect", refuse):
        before = look(detector, image)
        hidden, _ = hide(detector, search, image, before, settings.attempts)
        path = target(photo, out)
        save_photo(hidden, path)
        after = look(detector, read_photo(path, None))
        ends = fates(before.boxes, after.boxes)
        faces = [face._replace(fate=end) for face, end in zip(_faces(photo, before), ends, strict=True)]
        yield Protected(photo, path, faces, new_boxes(before.boxes, after.boxes))


def as_json(faces: dict[str, list[Face]]) -> dict[str, Any]:
    """Return the faces of each file as JSON holds them."""
    return {file: [{"box": list(face.box), "score": face.score} for face in found] for file, found in faces.items()}


def _faces(photo: Photo, found: Found) -> list[Face]:
    boxes = found.boxes.astype(np.float64).round(1).tolist()  # float32 has no 179.6
    return [
        Face(str(photo.path), tuple(box), round(float(score), 4))
        for box, score in zip(boxes, found.scores, strict=True)
    ]

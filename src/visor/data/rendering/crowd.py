"""Cut-outs of people pasted into an image, the nearest last, with exact boxes around their faces."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_CUT = 0.35  # share of a face that may lie outside the image
CUT_PROBABILITY = 0.15
MAX_HIDDEN = 0.4  # share of a face in the image that others may cover
MAX_TRIES = 6  # to find a place; then a person is left out
OCCLUDED = (0.02, 0.2)  # hidden shares above which a face counts as partly and as heavily occluded


class PersonCutout(NamedTuple):
    """A person, an RGBA image, and the mask of the face, 8-bit grey of the same size.

    ``seen`` is false for a person seen from behind; ``turned`` is true for a face that looks far aside.
    """

    person: Image.Image
    face: Image.Image
    seen: bool
    turned: bool


class PlacedFace(NamedTuple):
    """A face in an image: box (x, y, w, h) of the part within it, WIDER's grade of occlusion 0 … 2, turned."""

    box: tuple[int, int, int, int]
    occlusion: int
    turned: bool


def paste_people(
    generator: np.random.Generator, canvas: Image.Image, figures: Iterable[tuple[PersonCutout, float]]
) -> list[PlacedFace]:
    """Paste figures, whose faces get these heights in pixels, into a square RGB ``canvas`` in place.

    A figure that would hide too much of a face behind it, wherever it is put, is left out.
    """
    owner = np.zeros((canvas.height, canvas.width), np.int32)  # number of the face that a pixel shows, 0: none
    sizes, faces = [0], []
    for original, height in figures:
        figure = _varied(generator, original, height)
        placed = _find_place(generator, figure, owner, sizes)
        if placed is None:
            continue
        layer, face = placed
        canvas.paste(layer, (0, 0), layer)
        owner[_covered(layer)] = 0
        if figure.seen:
            owner[face] = len(sizes)
            sizes.append(int(np.count_nonzero(face)))
            faces.append(PlacedFace(bounds(face), 0, figure.turned))
    left = np.bincount(owner.ravel(), minlength=len(sizes))[1:]
    grades = np.searchsorted(OCCLUDED, 1 - left / np.array(sizes[1:]))
    return [face._replace(occlusion=int(grade)) for face, grade in zip(faces, grades, strict=True)]


def _find_place(
    generator: np.random.Generator, figure: PersonCutout, owner: NDArray[np.int32], sizes: list[int]
) -> tuple[Image.Image, NDArray[np.bool_]] | None:
    """Return a figure's layer and face at a place where enough of the faces in ``owner`` stays visible."""
    for _ in range(MAX_TRIES):
        layer, face = _layer(figure, _place(generator, figure.face, len(owner)), len(owner))
        left = np.bincount(owner[~_covered(layer)], minlength=len(sizes))
        if (left[1:] >= (1 - MAX_HIDDEN) * np.array(sizes[1:])).all():
            return layer, face
    return None


def _covered(layer: Image.Image) -> NDArray[np.bool_]:
    return np.asarray(layer)[..., 3] > 127


def bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the box (x, y, w, h) around the true pixels of a mask (height, width)."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def _inside(face: Image.Image) -> NDArray[np.bool_]:
    return np.asarray(face) > 127


def _varied(generator: np.random.Generator, figure: PersonCutout, height: float) -> PersonCutout:
    """Scale a figure to a height of its face, mirror half of them, and change the light."""
    side = max(4, round(figure.person.width * height / bounds(_inside(figure.face))[3]))
    images = [image.resize((side, side), Image.Resampling.BILINEAR) for image in (figure.person, figure.face)]
    if generator.random() < 0.5:
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    gain = 0.6 + 0.45 * generator.random() + 0.16 * (generator.random(3) - 0.5)
    tones = np.rint(np.minimum(np.arange(256) * gain[:, None], 255)).astype(int)
    person = images[0].point([*tones.ravel().tolist(), *range(256)])
    return figure._replace(person=person, face=images[1])


def _place(generator: np.random.Generator, face: Image.Image, side: int) -> tuple[int, int]:
    """Draw the position of a figure's corner: its face is within the image, or cut by one edge."""
    left, top, *size = bounds(_inside(face))
    free = side - np.array(size)
    place = generator.random(2) * free
    if generator.random() < CUT_PROBABILITY:
        axis = generator.integers(2)
        outside = MAX_CUT * generator.random() * size[axis]
        place[axis] = -outside if generator.random() < 0.5 else free[axis] + outside
    x, y = np.rint(place)
    return int(x) - left, int(y) - top


def _layer(figure: PersonCutout, corner: tuple[int, int], side: int) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Return a figure at its place, extended to the lower edge: RGBA, and the mask (side, side) of its face."""
    layer, face = Image.new("RGBA", (side, side)), Image.new("L", (side, side))
    layer.paste(figure.person, corner)
    face.paste(figure.face, corner)
    width, height = figure.person.size
    below = side - corner[1] - height
    if below > 0:  # the last row of the body is repeated
        hem = figure.person.crop((0, height - 1, width, height)).resize((width, below))
        layer.paste(hem, (corner[0], side - below))
    return layer, _inside(face)

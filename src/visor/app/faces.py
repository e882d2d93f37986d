"""Faces in an uploaded photo: found, or drawn by hand."""

from collections.abc import Sequence

from visor.app import limits
from visor.app.onlookers import ATTACKED, Eyes, look_at
from visor.crops import Frame, window
from visor.errors import UserError
from visor.faces import Images
from visor.protection.face_choice import is_inside
from visor.protection.face_finding import Face as Spot
from visor.protection.face_finding import match
from visor.protection.photos import LEAST

__all__ = ["Spot", "by_hand", "find_faces"]


def find_faces(eyes: Eyes, image: Images) -> list[Spot]:
    """Return the faces of a photo uint8 (h, w, 3), the largest first, at most ``limits.FACES``.

    They are what the finder sees, whichever way up, and what else the detector sees that attacks use. Boxes [x, y, w,
    h] in pixels of the photo, ``angle`` in degrees, ``score`` in [0, 1].
    """
    spots = eyes.find(image)
    seen = look_at(eyes, ATTACKED, image, [])
    for box, score in zip(seen.boxes.tolist(), seen.scores.tolist(), strict=True):
        spot = Spot(tuple(box), 0.0, round(score, 4))
        if match(spot, spots) is None:
            spots.append(spot)
    inside = [spot for spot in spots if is_inside(spot, image)]
    return sorted(inside, key=lambda spot: -spot.box[2] * spot.box[3])[: limits.FACES]


def by_hand(box: Sequence[float], shape: Sequence[int]) -> Spot:
    """Return a box [x, y, w, h] that somebody drew, cut to a photo of ``shape`` (h, w, …); its score is None.

    Raises:
        UserError: less than ``photos.LEAST`` pixels a side of it lie in the photo.
    """
    x, y, width, height = box
    rows, columns = window(Frame(x, y, width, height), shape)
    sides = columns.stop - columns.start, rows.stop - rows.start
    if min(sides) < LEAST:
        raise UserError(f"The box has less than {LEAST} pixels a side within the photo; draw a larger one")
    return Spot((float(columns.start), float(rows.start), float(sides[0]), float(sides[1])))

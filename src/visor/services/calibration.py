"""From which similarity on are two faces one person? Asked of people whom the range's recogniser never saw."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from visor.core.errors import UserError
from visor.core.types import Floats, Rows
from visor.data.face_set import open_faces
from visor.data.images import decode_image, jpeg_round_trip
from visor.services.face_matching import EncodeFacesFn, largest
from visor.services.photo_sets import matching_photo, open_photo_set

FALSE_ACCEPT_RATE = 0.01
FACES = 60  # at most: 1,500 pairs and more, unless people are very few


def calibrate(encode_faces: EncodeFacesFn, path: Path, known: Collection[str], border: float, quality: int) -> float:
    """Return the cosine that a share ``FALSE_ACCEPT_RATE`` of pairs of different people reaches at most.

    The people are those of the FaceSet at ``path`` but ``known``, who are as likely to be taken for others as those
    the recogniser was trained on are not. Their faces take the way of a query.

    Raises:
        UserError: their faces that are found make too few pairs to tell such a share.
    """
    faces = open_faces(path)
    held_out = [label for label, name in enumerate(faces.label_names) if name not in known]
    rows = choose(faces.labels, held_out)
    album, found, owners = open_photo_set(path, border), [], []
    for row in rows:
        name = album.names[row]
        seen = encode_faces(jpeg_round_trip(decode_image(matching_photo(album, name), name), quality))
        if len(seen.boxes):
            found.append(seen.embeddings[largest(seen.boxes)])
            owners.append(faces.labels[row])
    vectors, people = np.array(found), np.array(owners)
    first, second = np.triu_indices(len(people), 1)
    other = people[first] != people[second] if len(people) else np.zeros(0, bool)
    if other.sum() < 1 / FALSE_ACCEPT_RATE:
        raise UserError(
            f"{path}: the faces found of people whom the recogniser does not know make {other.sum()} pairs of "
            "different ones, too few to calibrate by; name another FaceSet, or a cosine by --threshold"
        )
    return threshold((vectors[first] * vectors[second]).sum(axis=1)[other])


def choose(labels: Rows, people: Sequence[int]) -> list[int]:
    """Return rows of these people, equally many of each, spread over those that they have."""
    share = max(1, FACES // max(1, len(people)))
    rows: list[int] = []
    for label in people[:FACES]:
        own = np.flatnonzero(labels == label)
        rows += own[np.unique(np.linspace(0, len(own) - 1, share).astype(int))].tolist() if len(own) else []
    return rows


def threshold(cosines: Floats) -> float:
    """Return the lowest threshold, of those that differ as similarities, that at most this share of cosines reaches."""
    allowed = int(FALSE_ACCEPT_RATE * len(cosines))
    return float(np.sort(cosines)[-1 - allowed]) + 2e-5

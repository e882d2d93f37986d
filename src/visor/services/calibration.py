"""Threshold of the mock service, calibrated on people that its recogniser was not trained on."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from visor.core.errors import UserError
from visor.core.types import Floats, Rows
from visor.data.face_set import evenly_spaced, open_faces
from visor.data.images import decode_image, jpeg_round_trip
from visor.evaluation.boxes import sort_by_area
from visor.models.features import cosine_similarity
from visor.services.face_matching import EncodeFacesFn
from visor.services.photo_sets import open_photo_set

FALSE_ACCEPT_RATE = 0.01
MAX_FACES = 60  # 1,500 pairs or more, unless there are very few people


def calibrate(encode_faces: EncodeFacesFn, path: Path, exclude: Collection[str], border: float, quality: int) -> float:
    """Return the cosine that at most ``FALSE_ACCEPT_RATE`` of the pairs of different people in a FaceSet reach.

    People to ``exclude`` are those the recogniser was trained on, as it separates them better. Faces are treated like
    those of a query, with ``border`` and JPEG ``quality``.

    Raises:
        UserError: The faces that are detected make too few pairs for that rate.
    """
    faces, photos = open_faces(path, untrusted=True), open_photo_set(path, border)
    held_out = [label for label, name in enumerate(faces.label_names) if name not in exclude]
    embeddings, labels = [], []
    for row in select_rows(faces.labels, held_out):
        name = photos.names[row]
        encoded = encode_faces(jpeg_round_trip(decode_image(photos.read(name), name), quality))
        if len(encoded.boxes):
            embeddings.append(encoded.embeddings[sort_by_area(encoded.boxes)[0]])
            labels.append(faces.labels[row])
    first, second = np.triu_indices(len(labels), 1)
    different = np.array(labels)[first] != np.array(labels)[second]
    if different.sum() < 1 / FALSE_ACCEPT_RATE:
        raise UserError(
            f"{path}: the detected faces of people whom the recogniser was not trained on make {different.sum()} pairs "
            "of different people, too few to calibrate; pass another FaceSet, or a cosine with --threshold"
        )
    vectors = np.array(embeddings)
    return false_accept_threshold(cosine_similarity(vectors[first], vectors[second])[different])


def select_rows(labels: Rows, people: Sequence[int]) -> list[int]:
    """Return evenly spaced rows of each of these people, ``MAX_FACES`` at most and equally many of each."""
    count = max(1, MAX_FACES // max(1, len(people)))
    rows_by_person = [np.flatnonzero(labels == person) for person in people[:MAX_FACES]]
    return [row for rows in rows_by_person for row in rows[evenly_spaced(count, len(rows))].tolist()]


def false_accept_threshold(cosines: Floats) -> float:
    """Return the lowest threshold, to the precision of a similarity, that at most this share of cosines reaches."""
    allowed = int(FALSE_ACCEPT_RATE * len(cosines))
    return float(np.sort(cosines)[-1 - allowed]) + 2e-5

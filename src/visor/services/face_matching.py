"""What the range sees in two pictures: re-encoded as JPEG, faces found, cropped, embedded and compared."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from visor.core.types import Floats, ImageArray
from visor.data.crops import CropBox, crop, expand_box
from visor.data.images import jpeg_round_trip


class DetectionsLike(Protocol):
    """What a detector returns for an image: ``boxes`` (k, 4) [x, y, w, h] in pixels and ``scores`` (k,)."""

    @property
    def boxes(self) -> Floats: ...

    @property
    def scores(self) -> Floats: ...


class EncodedFaces(NamedTuple):
    """Faces of a picture: ``boxes`` (k, 4) [x, y, w, h] in pixels, ``scores`` (k,), unit ``embeddings`` (k, d)."""

    boxes: Floats
    scores: Floats
    embeddings: Floats


class ComparisonResult(NamedTuple):
    """The first picture's largest face (its box and score) and each of the second's, the likest first.

    ``missing`` is "source" or "target" if there is no face in the first or the second, else "".
    """

    missing: str
    source: dict[str, Any]
    faces: list[dict[str, Any]]


EncodeFacesFn = Callable[[ImageArray], EncodedFaces]  # of one picture uint8 (h, w, 3)
Detect = Callable[[ImageArray], Sequence[DetectionsLike]]  # of uint8 (n, h, w, 3)
Embed = Callable[[ImageArray], Floats]  # uint8 (n, h, w, 3) → unit (n, d)


def face_encoder(
    detect: Detect | None, threshold: float, embed: Embed, shape: tuple[int, int], margin: float
) -> EncodeFacesFn:
    """Return what sees faces: those that a detector gives a score from ``threshold`` on.

    Each is cut out with ``margin`` of its sides around it, to crops (h, w) of ``shape``, one size, as networks are
    traced anew for each; without a detector the whole picture is a face.
    """

    def see(picture: ImageArray) -> EncodedFaces:
        if detect is None:
            whole = np.array([0, 0, picture.shape[1], picture.shape[0]], np.float32)
            whole_crop = picture if picture.shape[:2] == shape else crop(picture, CropBox(*whole.tolist()), shape)
            return EncodedFaces(whole[np.newaxis], np.ones(1, np.float32), embed(whole_crop[np.newaxis]))
        found = detect(picture[np.newaxis])[0]
        sure = (found.scores >= threshold) & (found.boxes[:, 2:] >= 1).all(axis=1)
        boxes, scores = found.boxes[sure], found.scores[sure]
        frames = [expand_box(box, margin, shape[0] / shape[1]) for box in boxes]
        crops = [crop(picture, frame, shape) for frame in frames]
        return EncodedFaces(boxes, scores, embed(np.stack(crops)) if crops else np.empty((0, 1), np.float32))

    return see


def compare_faces(see: EncodeFacesFn, one: ImageArray, other: ImageArray, quality: int) -> ComparisonResult:
    """Compare the largest face of a picture uint8 (h, w, 3) with all of another, both as JPEG of this quality."""
    source = see(jpeg_round_trip(one, quality))
    if len(source.boxes) == 0:
        return ComparisonResult("source", {}, [])
    target = see(jpeg_round_trip(other, quality))
    if len(target.boxes) == 0:
        return ComparisonResult("target", {}, [])
    chosen = largest(source.boxes)
    cosines = target.embeddings @ source.embeddings[chosen]
    faces = [
        _face_json(target, place) | {"similarity": round(similarity_score(cosines[place]), 3)}
        for place in np.argsort(-cosines, kind="stable")
    ]
    return ComparisonResult("", _face_json(source, chosen), faces)


def largest(boxes: Floats) -> int:
    """Return which of boxes (k, 4) [x, y, w, h] has the largest area."""
    return int(np.argmax(boxes[:, 2] * boxes[:, 3]))


def similarity_score(cosine: float) -> float:
    """Return the cosine of two embeddings as 0–100, to three places, which a threshold is told by too."""
    return round(50.0 * (1.0 + float(np.clip(cosine, -1, 1))), 3)


def network_fingerprint(settings: str, detect: Detect | None, embed: Embed, shape: tuple[int, int]) -> str:
    """Return a name for networks and settings that changes with them, by what they make of a picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 4 * shape[0], 4 * shape[1], 3), dtype=np.uint8)
    made = [embed(noise[:, : shape[0], : shape[1]])]
    if detect:
        made += [part for found in detect(noise) for part in (found.boxes, found.scores)]
    digest = hashlib.sha256(settings.encode())
    for values in made:
        digest.update(np.round(values.astype(np.float64), 3).tobytes())
    return digest.hexdigest()[:16]


def _face_json(seen: EncodedFaces, place: int) -> dict[str, Any]:
    """Return box and score of a face as JSON holds them."""
    box = [round(value, 1) for value in seen.boxes[place].astype(float).tolist()]
    return {"box": box, "score": round(float(seen.scores[place]), 4)}

"""Face matching of the mock service: images are re-encoded as JPEG, faces detected, cropped, embedded and compared."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from visor.core.types import Floats, ImageArray
from visor.data.crops import CropBox, crop
from visor.data.images import jpeg_round_trip
from visor.evaluation.boxes import sort_by_area
from visor.models.alignment import face_frame, locate_landmarks
from visor.models.detectors import Detections
from visor.models.features import Embed, cosine_similarity
from visor.models.recognisers.base import Template


class EncodedFaces(NamedTuple):
    """Faces of an image: ``boxes`` (k, 4) [x, y, w, h] in pixels, ``scores`` (k,), unit ``embeddings`` (k, d)."""

    boxes: Floats
    scores: Floats
    embeddings: Floats


class ComparisonResult(NamedTuple):
    """Comparison of two images as JSON values."""

    missing: str  # "source" or "target" if the first or the second image shows no face, else ""
    source: dict[str, Any]  # box and score of the first image's largest face
    faces: list[dict[str, Any]]  # box, score and similarity of the second image's faces, the most similar first


EncodeFacesFn = Callable[[ImageArray], EncodedFaces]  # of an image uint8 (h, w, 3)
DetectFn = Callable[[ImageArray], Detections]  # of an image uint8 (h, w, 3)
DetectBatchFn = Callable[[ImageArray], Sequence[Detections]]  # of images uint8 (n, h, w, 3)


def face_encoder(
    detect: DetectFn | None, embed: Embed, shape: tuple[int, int], margin: float, template: Template | None = None
) -> EncodeFacesFn:
    """Return a function that detects the faces of an image and embeds them as unit vectors (n, d).

    Crops are aligned to the template of the network, or have a margin, as a share of the box's sides. They have one
    ``shape`` (h, w), as networks are traced anew for each size. Without a detector the whole image is a face.
    """

    def frame(image: ImageArray, box: Floats) -> CropBox:
        landmarks = locate_landmarks(image, box.tolist()) if template else None
        return face_frame(box.tolist(), landmarks, template, shape, margin)

    def encode_faces(image: ImageArray) -> EncodedFaces:
        if detect is None:
            height, width = image.shape[:2]
            face = image if (height, width) == shape else crop(image, CropBox(0, 0, width, height), shape)
            boxes, scores = np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32)
            return EncodedFaces(boxes, scores, embed(face[np.newaxis]))
        boxes, scores = detect(image)
        has_area = (boxes[:, 2:] >= 1).all(axis=1)
        boxes, scores = boxes[has_area], scores[has_area]
        crops = [crop(image, frame(image, box), shape) for box in boxes]
        return EncodedFaces(boxes, scores, embed(np.stack(crops)) if crops else np.empty((0, 1), np.float32))

    return encode_faces


def compare_faces(encode: EncodeFacesFn, source: ImageArray, target: ImageArray, quality: int) -> ComparisonResult:
    """Compare the largest face of ``source`` uint8 (h, w, 3) with all of ``target``, both as JPEG of this quality."""
    first = encode(jpeg_round_trip(source, quality))
    if not len(first.boxes):
        return ComparisonResult("source", {}, [])
    second = encode(jpeg_round_trip(target, quality))
    if not len(second.boxes):
        return ComparisonResult("target", {}, [])
    index = sort_by_area(first.boxes)[0]
    cosines = cosine_similarity(second.embeddings, first.embeddings[index : index + 1])
    faces = [
        _face_json(second, face) | {"similarity": similarity_score(cosines[face])}
        for face in np.argsort(-cosines, kind="stable")
    ]
    return ComparisonResult("", _face_json(first, index), faces)


def similarity_score(cosine: float) -> float:
    """Return a cosine similarity as 0–100, rounded to three places like the service's threshold."""
    return round(50.0 * (1.0 + float(np.clip(cosine, -1, 1))), 3)


def network_fingerprint(settings: str, detect: DetectBatchFn | None, embed: Embed, shape: tuple[int, int]) -> str:
    """Return a name that changes with networks and settings, by the networks' outputs for an image of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 4 * shape[0], 4 * shape[1], 3), dtype=np.uint8)
    outputs = [embed(noise[:, : shape[0], : shape[1]])]
    if detect:
        outputs += [output for detections in detect(noise) for output in (detections.boxes, detections.scores)]
    digest = hashlib.sha256(settings.encode())
    for values in outputs:
        digest.update(np.round(values.astype(np.float64), 3).tobytes())
    return digest.hexdigest()[:16]


def _face_json(faces: EncodedFaces, index: int) -> dict[str, Any]:
    """Return box and score of a face as JSON values."""
    box = [round(value, 1) for value in faces.boxes[index].astype(float).tolist()]
    return {"box": box, "score": round(float(faces.scores[index]), 4)}

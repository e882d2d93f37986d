"""A whole collection of photos: what cannot be read is refused by name, the rest goes on."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES, face_masks
from visor.attacks.evasion.pgd import compile_pgd
from visor.attacks.evasion.quantise import eps_in_levels
from visor.core.errors import UserError
from visor.core.types import Floats, ImageArray, MessageCallback
from visor.data.crops import SAMPLES, CropBox, expand_box, region, sampled_mask
from visor.data.images import read_image
from visor.data.scene_set import FACE, PAD_VALUE
from visor.evaluation.boxes import TOUCH_IOU, face_outcomes, iou
from visor.models.detectors import Detections, Detector
from visor.models.detectors.mtcnn import FACTOR
from visor.photos.evade import RegionPerturbation
from visor.photos.files import PhotoFile, output_path, read_photos, save_photo

PAD_MULTIPLE = 64  # pixels; sides are padded to multiples
BOX_PAD_MULTIPLE = 64  # true boxes are padded to multiples, too
MAX_DETECTION_SIDE = 2048  # pixels of the longer side in which faces are looked for
MOMENTUM = 0.9  # without it more starts leave a face, for the same gradients


class HideSettings(NamedTuple):
    """Bound ``eps`` in [0, 1], gradient steps, objective, where to perturb (``faces`` enlarged by ``margin``, or
    everywhere), the longer side in pixels of the copy that is searched on, and how many searches a photo is worth.
    """

    eps: float
    iterations: int
    objective: str = "suppress"
    mask: str = "none"
    margin: float = 0.2
    side: int = 1024
    attempts: int = 2
    seed: int = 1


Search = Callable[[ImageArray, Floats, int], ImageArray]


def detect_in_photo(detector: Detector, image: ImageArray) -> Detections:
    """Return the faces that a detector is sure of in a photo uint8 (h, w, 3), boxes in the photo's pixels."""
    reduced = _reduced(image, MAX_DETECTION_SIDE)
    (found,) = detector.detect(_padded(reduced)[np.newaxis])
    height, width = reduced.shape[:2]
    corners = np.minimum(found.boxes[:, :2] + found.boxes[:, 2:], [width, height])
    start = np.maximum(found.boxes[:, :2], 0)
    sure = (found.scores >= detector.threshold) & (corners > start).all(axis=1)
    boxes = np.concatenate([start, corners - start], 1)[sure] * (image.shape[1] / width)
    return Detections(boxes.astype(np.float32), found.scores[sure])


def compile_hiding_attack(detector: Detector, settings: HideSettings) -> Search:
    """Return ``search(photo, boxes of its faces, number)`` → the photo uint8 (h, w, 3), perturbed.

    The number of an attempt makes its random start.

    Raises:
        UserError: the detector gives the objective no gradient.
    """
    if detector.pre_nms is None:
        raise UserError(f"--detector {detector.name} gives no gradient to attack by; choose another")
    loss = DETECTOR_LOSSES[settings.objective](detector.pre_nms, detector.loss, detector.threshold, 1.0)
    step = 2.5 * settings.eps / settings.iterations
    attack = compile_pgd(loss, AttackSettings(settings.eps, settings.iterations, step, MOMENTUM, seed=settings.seed))

    def search(image: ImageArray, boxes: Floats, number: int) -> ImageArray:
        copy = _reduced(image, settings.side)
        boxes, kinds = _truth(boxes * (copy.shape[1] / image.shape[1]))
        canvas = _padded(copy)
        mask = np.zeros((1, *canvas.shape[:2], 1), np.float32)
        mask[:, : copy.shape[0], : copy.shape[1]] = 1
        if settings.mask == "faces":
            mask *= face_masks(boxes, kinds, canvas.shape[:2], settings.margin)
        found = attack(canvas[np.newaxis], (boxes, kinds), [number], mask).images[0]
        change = (found * 255 - canvas)[: copy.shape[0], : copy.shape[1]]
        return apply_perturbation(image, change, eps_in_levels(settings.eps))

    return search


def hide_faces(
    detector: Detector, search: Search, image: ImageArray, before: Detections, attempts: int
) -> tuple[ImageArray, Detections]:
    """Return the photo with the fewest faces left of several searches, and those faces; one without any ends it."""
    best, left = image, before
    for number in range(attempts if len(before.boxes) else 0):
        tried = search(image, before.boxes, number)
        found = detect_in_photo(detector, tried)
        if number == 0 or len(found.boxes) < len(left.boxes):
            best, left = tried, found
        if not len(left.boxes):
            break
    return best, left


def new_boxes(before: Floats, after: Floats) -> int:
    """Return how many of the boxes (m, 4) found after touch no face (k, 4) that was found before."""
    return int((iou(after, before).max(axis=1, initial=0.0) < TOUCH_IOU).sum())


def apply_perturbation(image: ImageArray, change: NDArray[np.floating[Any]], most: int) -> ImageArray:
    """Add a change, in levels and enlarged to the photo's size, of at most ``most`` levels in each value."""
    height, width = image.shape[:2]
    result = np.empty_like(image)
    for channel in range(3):  # one after the other: a photo of twelve megapixels in floats is large
        plane = Image.fromarray(np.ascontiguousarray(change[..., channel], np.float32))
        if plane.size != (width, height):
            plane = plane.resize((width, height), Image.Resampling.NEAREST)  # others would blur it away
        moved = image[..., channel] + np.clip(np.rint(np.asarray(plane)), -most, most).astype(np.int16)
        result[..., channel] = np.clip(moved, 0, 255)
    return result


def _reduced(image: ImageArray, side: int) -> ImageArray:
    """Return a photo whose longer side is at most ``side`` pixels, smaller by a power of MTCNN's ``FACTOR``.

    So levels of its pyramid are levels of the photo's, too, and what blinds it here blinds it there.
    """
    excess = max(image.shape[:2]) / side
    if excess <= 1:
        return image
    scale = FACTOR ** np.ceil(np.log(excess) / -np.log(FACTOR))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _padded(image: ImageArray) -> ImageArray:
    """Return a photo with grey to the right and below, up to multiples of ``CLASS`` pixels."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % PAD_MULTIPLE), (0, -width % PAD_MULTIPLE), (0, 0)), constant_values=PAD_VALUE)


def _truth(boxes: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Return boxes (1, m, 4) and kinds (1, m), m the next multiple of ``FACES``."""
    count = len(boxes)
    padded = np.zeros((1, max(BOX_PAD_MULTIPLE, count + -count % BOX_PAD_MULTIPLE), 4), np.float32)
    kinds = np.zeros(padded.shape[:2], np.int32)
    padded[0, :count], kinds[0, :count] = boxes, FACE
    return padded, kinds


class DetectedFace(NamedTuple):
    """One face of a photo: box [x, y, w, h] in its pixels, score, and what became of it (None: nothing was tried)."""

    file: str
    box: tuple[float, float, float, float]
    score: float
    outcome: str | None = None


class HiddenPhoto(NamedTuple):
    """A photo, the PNG that was written, the faces of the photo, and how many boxes are found where none was."""

    photo: PhotoFile
    path: Path
    faces: list[DetectedFace]
    new: int


def detect_photos(
    detector: Detector, photos: Sequence[PhotoFile], refuse: MessageCallback
) -> dict[str, list[DetectedFace]]:
    """Return the faces of each photo that could be read; ``refuse`` is told of each other one."""
    return {
        str(photo.path): _faces(photo, detect_in_photo(detector, image))
        for photo, image in read_photos(photos, "detect", refuse)
    }


def protect_photos(
    detector: Detector, photos: Sequence[PhotoFile], out: Path, settings: HideSettings, refuse: MessageCallback
) -> Iterator[HiddenPhoto]:
    """Hide the faces of each photo; what became of them is what the detector finds in the PNG, read back.

    Raises:
        UserError: the detector gives the objective no gradient, or a PNG cannot be written.
    """
    search = compile_hiding_attack(detector, settings)
    for photo, image in read_photos(photos, "protect", refuse):
        before = detect_in_photo(detector, image)
        hidden, _ = hide_faces(detector, search, image, before, settings.attempts)
        path = output_path(photo, out)
        save_photo(hidden, path)
        after = detect_in_photo(detector, read_image(path, None))
        ends = face_outcomes(before.boxes, after.boxes)
        faces = [face._replace(outcome=end) for face, end in zip(_faces(photo, before), ends, strict=True)]
        yield HiddenPhoto(photo, path, faces, new_boxes(before.boxes, after.boxes))


def as_json(faces: dict[str, list[DetectedFace]]) -> dict[str, Any]:
    """Return the faces of each file as JSON holds them."""
    return {file: [{"box": list(face.box), "score": face.score} for face in found] for file, found in faces.items()}


def _faces(photo: PhotoFile, found: Detections) -> list[DetectedFace]:
    boxes = found.boxes.astype(np.float64).round(1).tolist()  # float32 has no 179.6
    return [
        DetectedFace(str(photo.path), tuple(box), round(float(score), 4))
        for box, score in zip(boxes, found.scores, strict=True)
    ]


MARGIN = 0.3  # of a face's sides, at each of their ends, that is changed with it
LOCAL_SIDE = 80  # pixels: up to SAMPLES times as many blocks a side hold a face and its margin
CANVAS = SAMPLES * LOCAL_SIDE + 4  # and those that a frame cuts
LOCAL_MOMENTUM = 0.9
STEP = 0.1  # of the bound
SCORE_THRESHOLD = 0.5  # score below which, by ``objectives.MARGIN``, all boxes have to fall until a face is done
BATCH = 4  # faces at once

LocalAttack = Callable[[ImageArray, Sequence[CropBox], int], list[RegionPerturbation]]


def compile_local_attack(detector: Detector, eps: float, iterations: int, seed: int) -> LocalAttack:
    """Return ``near(photo, frames of its faces, number)`` → what changes in the photo, for each frame.

    eps: bound in [0, 1]. number: of the attempt, makes its random start.
    """
    loss = DETECTOR_LOSSES["suppress"](detector.pre_nms, detector.loss, SCORE_THRESHOLD, 1.0)
    attack = compile_pgd(loss, AttackSettings(eps, iterations, STEP * eps, LOCAL_MOMENTUM, early_stop=True, seed=seed))

    def near(image: ImageArray, frames: Sequence[CropBox], number: int) -> list[RegionPerturbation]:
        parts = [region(image, frame, (LOCAL_SIDE, LOCAL_SIDE)) for frame in frames]
        canvases, masks = (np.zeros((len(parts), CANVAS, CANVAS, depth), np.float32) for depth in (3, 1))
        canvases += PAD_VALUE / 255
        for part, canvas, mask in zip(parts, canvases, masks, strict=True):
            rows, columns = part.blocks.shape[:2]
            canvas[:rows, :columns], mask[:rows, :columns] = part.blocks, sampled_mask(part)
        no_truth = np.zeros((len(parts), 1, 4), np.float32), np.zeros((len(parts), 1), np.int32)
        found = attack(canvases, no_truth, np.full(len(parts), number), masks).images
        changes = (found - canvases) * 255
        return [
            RegionPerturbation(part, change[: part.blocks.shape[0], : part.blocks.shape[1]])
            for part, change in zip(parts, changes, strict=True)
        ]

    return near


def attack_frame(box: Sequence[float]) -> CropBox:
    """Return the square of the photo that is changed for a face with this box [x, y, w, h]."""
    return expand_box(box, MARGIN, 1.0)

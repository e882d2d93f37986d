"""Hide the faces in photos from a detector, by a perturbation of the whole photo or of the region of each face."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visor.attacks.evasion.loop import Attack, AttackSettings
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES, face_masks
from visor.attacks.evasion.pgd import compile_pgd
from visor.core.errors import UserError
from visor.core.types import Floats, ImageArray, MessageCallback, ProgressCallback
from visor.data.crops import SAMPLES, CropBox, expand_box, region, sampled_mask
from visor.data.images import read_image
from visor.data.scene_set import FACE, PAD_VALUE
from visor.evaluation.boxes import TOUCH_IOU, iou
from visor.models.detectors import Detections, Detector
from visor.models.detectors.mtcnn import FACTOR
from visor.photos.files import PhotoFile, output_path, read_photos, save_photo
from visor.photos.outcome import NetworkOutcome, best_overlapping_scores, detector_outcomes
from visor.photos.restarts import RegionPerturbation, apply_perturbations, best_of_restarts

PAD_MULTIPLE = 64  # pixels: sides are padded to multiples of it, and numbers of true boxes too
MAX_DETECTION_SIDE = 2048  # pixels of the longer side of the copy in which faces are detected
MOMENTUM = 0.9  # without it more restarts leave a face, for the same number of gradients
PHOTO_STEP = 2.5  # times eps / iterations
FACE_STEP = 0.1  # times eps
FACE_MARGIN = 0.3  # share of a face's sides that is perturbed around it
FACE_SIDE = 80  # pixels: a face and its margin have up to SAMPLES times as many blocks a side
FACE_CANVAS = SAMPLES * FACE_SIDE + 4  # and those that the frame cuts
FACE_THRESHOLD = 0.5  # all scores have to fall below it, with the margin of the loss, until a face is done
FACE_BATCH = 4


class HideSettings(NamedTuple):
    """Settings of the hiding attack."""

    eps: float  # L∞ bound in [0, 1]
    iterations: int  # gradient steps of each restart
    objective: str = "suppress"  # key of DETECTOR_LOSSES
    mask: str = "none"  # region photo: "faces" perturbs the face boxes only, enlarged by ``margin`` of their sides
    margin: float = 0.2
    side: int = 1024  # region photo: longer side in pixels of the copy that the attack is computed on
    attempts: int = 2  # maximum number of restarts
    seed: int = 1
    region: Literal["photo", "face"] = "photo"  # one perturbation of the whole photo, or one around each face


class HiddenPhoto(NamedTuple):
    """A photo whose faces were hidden, with the outcome measured on the PNG that was written."""

    photo: PhotoFile
    path: Path
    before: Detections
    outcomes: list[NetworkOutcome]  # of each detection before
    new_boxes: int  # number of detections in the PNG where there was none before


# ``attack(photo, groups, attempt)``: a perturbation for each group of boxes (k, 4); ``attempt`` fixes the random start.
HidingAttack = Callable[[ImageArray, Sequence[Floats], int], list[RegionPerturbation]]


def detect_in_photo(detector: Detector, image: ImageArray) -> Detections:
    """Return the detections in a photo uint8 (h, w, 3) from the detector's threshold on, in pixels of the photo."""
    reduced = _reduce(image, MAX_DETECTION_SIDE)
    (found,) = detector.detect(_pad_image(reduced)[np.newaxis])
    height, width = reduced.shape[:2]
    corners = np.minimum(found.boxes[:, :2] + found.boxes[:, 2:], [width, height])
    start = np.maximum(found.boxes[:, :2], 0)
    kept = (found.scores >= detector.threshold) & (corners > start).all(axis=1)
    boxes = np.concatenate([start, corners - start], 1)[kept] * (image.shape[1] / width)
    return Detections(boxes.astype(np.float32), found.scores[kept])


@cache
def compile_hiding_attack(detector: Detector, settings: HideSettings) -> HidingAttack:
    """Compile the attack of ``hide_faces``, once for each detector and settings.

    Raises:
        UserError: The detector has no gradient for the objective.
    """
    if detector.pre_nms is None:
        raise UserError(f"--detector {detector.name} has no gradient to attack it with; choose another")
    by_face, eps = settings.region == "face", settings.eps
    step = FACE_STEP * eps if by_face else PHOTO_STEP * eps / settings.iterations
    threshold = FACE_THRESHOLD if by_face else detector.threshold
    loss = DETECTOR_LOSSES[settings.objective](detector.pre_nms, detector.loss, threshold, 1.0)
    search = AttackSettings(eps, settings.iterations, step, MOMENTUM, early_stop=by_face, seed=settings.seed)
    pgd = compile_pgd(loss, search)
    return _face_attack(pgd) if by_face else _photo_attack(pgd, settings)


def _photo_attack(pgd: Attack, settings: HideSettings) -> HidingAttack:
    """Return the attack that perturbs a whole photo, for one group of boxes."""

    def attack(image: ImageArray, groups: Sequence[Floats], attempt: int) -> list[RegionPerturbation]:
        copy = _reduce(image, settings.side)
        boxes, kinds = _pad_boxes(groups[0] * (copy.shape[1] / image.shape[1]))
        canvas = _pad_image(copy)
        inside = np.s_[: copy.shape[0], : copy.shape[1]]
        mask = np.zeros((1, *canvas.shape[:2], 1), np.float32)
        mask[0][inside] = 1
        if settings.mask == "faces":
            mask *= face_masks(boxes, kinds, canvas.shape[:2], settings.margin)
        adversarial = pgd(canvas[np.newaxis], (boxes, kinds), [attempt], mask).images[0]
        return [RegionPerturbation(None, (adversarial * 255 - canvas)[inside])]

    return attack


def _face_attack(pgd: Attack) -> HidingAttack:
    """Return the attack that perturbs the region of each face, for groups of one box."""

    def attack(image: ImageArray, groups: Sequence[Floats], attempt: int) -> list[RegionPerturbation]:
        parts = [region(image, attack_frame(boxes[0]), (FACE_SIDE, FACE_SIDE)) for boxes in groups]
        shape = len(parts), FACE_CANVAS, FACE_CANVAS
        canvases, masks = np.full((*shape, 3), PAD_VALUE / 255, np.float32), np.zeros((*shape, 1), np.float32)
        for part, canvas, mask in zip(parts, canvases, masks, strict=True):
            rows, columns = part.blocks.shape[:2]
            canvas[:rows, :columns], mask[:rows, :columns] = part.blocks, sampled_mask(part)
        no_truth = np.zeros((len(parts), 1, 4), np.float32), np.zeros((len(parts), 1), np.int32)
        adversarial = pgd(canvases, no_truth, np.full(len(parts), attempt), masks).images
        return [
            RegionPerturbation(part, change[: part.blocks.shape[0], : part.blocks.shape[1]])
            for part, change in zip(parts, (adversarial - canvases) * 255, strict=True)
        ]

    return attack


def attack_frame(box: Sequence[float]) -> CropBox:
    """Return the square of the photo that is perturbed for a face with box [x, y, w, h]."""
    return expand_box(box, FACE_MARGIN, 1.0)


def hide_faces(
    detector: Detector,
    image: ImageArray,
    boxes: Floats,
    settings: HideSettings,
    previous: Sequence[RegionPerturbation] = (),
    report_progress: ProgressCallback = lambda share, message: None,
) -> list[RegionPerturbation]:
    """Search for perturbations with which the detector no longer finds the faces in the 8-bit photo.

    Args:
        image: Photo uint8 (h, w, 3).
        boxes: Faces (k, 4).
        previous: Perturbations that the attack starts from.
        report_progress: Called before each batch; an exception that it raises ends the search.

    Returns:
        ``previous`` and the best perturbation of the photo, or of each face.

    Raises:
        UserError: The detector has no gradient for the objective.
    """
    attack = compile_hiding_attack(detector, settings)
    groups = list(boxes[:, np.newaxis]) if settings.region == "face" else [boxes] if len(boxes) else []
    start = apply_perturbations(image, previous, settings.eps)

    def attempt_fn(remaining: list[int], attempt: int) -> dict[int, RegionPerturbation]:
        changes: list[RegionPerturbation] = []
        for first in range(0, len(remaining), FACE_BATCH):
            share = (attempt + first / len(remaining)) / settings.attempts
            report_progress(share, "Hiding faces from the detector")
            changes += attack(start, [groups[number] for number in remaining[first : first + FACE_BATCH]], attempt)
        return dict(zip(remaining, changes, strict=True))

    def score_fn(changes: Sequence[RegionPerturbation]) -> list[float]:
        found = detect_in_photo(detector, apply_perturbations(image, [*previous, *changes], settings.eps))
        if settings.region == "photo":
            return [-len(found.boxes) if len(found.boxes) else np.inf]
        scores = best_overlapping_scores(found, boxes, TOUCH_IOU)
        return [np.inf if score is None else -score for score in scores]

    return [*previous, *best_of_restarts(len(groups), settings.attempts, attempt_fn, score_fn)]


def detect_photos(
    detector: Detector, photos: Sequence[PhotoFile], on_error: MessageCallback
) -> dict[str, list[dict[str, Any]]]:
    """Return the faces of each photo that can be read: file → box [x, y, w, h] and score of each."""
    return {
        str(photo.path): detection_rows(detect_in_photo(detector, image))
        for photo, image in read_photos(photos, "detect", on_error)
    }


def detection_rows(found: Detections) -> list[dict[str, Any]]:
    """Return detections as JSON objects of ``box`` and ``score``, rounded."""
    boxes = found.boxes.astype(np.float64).round(1).tolist()  # In float32 there is no 179.6.
    return [{"box": box, "score": round(float(score), 4)} for box, score in zip(boxes, found.scores, strict=True)]


def hide_photos(
    detector: Detector, photos: Sequence[PhotoFile], out: Path, settings: HideSettings, on_error: MessageCallback
) -> Iterator[HiddenPhoto]:
    """Hide the faces of each photo that can be read, and measure the outcome on the PNG that was written.

    Raises:
        UserError: The detector has no gradient for the objective, or a PNG cannot be written.
    """
    compile_hiding_attack(detector, settings)  # An error is about the options, whatever the photos are.
    for photo, image in read_photos(photos, "protect", on_error):
        before, path = detect_in_photo(detector, image), output_path(photo, out)
        changes = hide_faces(detector, image, before.boxes, settings)
        save_photo(apply_perturbations(image, changes, settings.eps), path)
        after = detect_in_photo(detector, read_image(path))
        new_boxes = int((iou(after.boxes, before.boxes).max(axis=1, initial=0.0) < TOUCH_IOU).sum())
        yield HiddenPhoto(photo, path, before, detector_outcomes(detector, before.boxes, before, after), new_boxes)


def _reduce(image: ImageArray, max_side: int) -> ImageArray:
    """Reduce a photo by a power of MTCNN's ``FACTOR`` to at most ``max_side`` pixels.

    Levels of MTCNN's pyramid of the copy are then levels of the photo's, so an attack on the copy holds on the photo.
    """
    excess = max(image.shape[:2]) / max_side
    if excess <= 1:
        return image
    scale = FACTOR ** np.ceil(np.log(excess) / -np.log(FACTOR))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _pad_image(image: ImageArray) -> ImageArray:
    """Pad a photo with grey on the right and below to multiples of ``PAD_MULTIPLE`` pixels."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % PAD_MULTIPLE), (0, -width % PAD_MULTIPLE), (0, 0)), constant_values=PAD_VALUE)


def _pad_boxes(boxes: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Return boxes (1, m, 4) and kinds (1, m), m the next multiple of ``PAD_MULTIPLE``."""
    count = len(boxes)
    padded = np.zeros((1, max(PAD_MULTIPLE, count + -count % PAD_MULTIPLE), 4), np.float32)
    kinds = np.zeros(padded.shape[:2], np.int32)
    padded[0, :count], kinds[0, :count] = boxes, FACE
    return padded, kinds

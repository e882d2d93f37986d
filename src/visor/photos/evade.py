"""Evade a recogniser with perturbations of the photo's own pixels, measured on the saved file.

The attack goes through crop, random transforms and network at once, so what it changes are pixels of the photo.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.recognisers import RECOGNISER_LOSSES
from visor.attacks.evasion.registry import ATTACKS
from visor.attacks.evasion.resampling import sample_crop
from visor.attacks.evasion.transforms import compose
from visor.core.tf import tf
from visor.core.types import Floats, ImageArray, MessageCallback, ProgressCallback
from visor.data.crops import SAMPLES, CropBox, region, sampled_mask
from visor.data.images import read_image
from visor.models.recognisers.base import Recogniser
from visor.photos.faces import FaceSelector, match_face, select_faces
from visor.photos.files import PhotoFile, output_path, read_photos, save_photo
from visor.photos.identify import PhotoRecogniser, RecognisedFace, recognise_faces
from visor.photos.outcome import (
    GOAL_OUTPUTS,
    TARGETED_GOALS,
    AttackGoal,
    NetworkOutcome,
    is_success,
    recogniser_outcome,
)
from visor.photos.restarts import RegionPerturbation, apply_perturbations, best_of_restarts

STEP = 2.5  # times eps / iterations
NOT_FOUND_PENALTY = 2.0  # more than two similarities can differ by


# Momentum of MI-FGSM, and strengths of the random transforms that the perturbation has to survive: a face that is
# detected again moves by some 4 %.
METHODS: dict[str, tuple[float, dict[str, float]]] = {
    "pgd": (0.0, {}),
    "robust": (1.0, {"crop": 0.05, "scale": 0.05, "noise": 0.02}),
}


class EvadeSettings(NamedTuple):
    """Settings of the evasion attack."""

    eps: float  # L∞ bound in [0, 1]
    iterations: int  # gradient steps of each restart
    method: str = "robust"  # key of METHODS
    seed: int = 1
    attempts: int = 3  # maximum number of restarts


class EvadedFace(NamedTuple):
    """A face with the goal of its attack, as it was, as it is in the changed photo, and the outcome."""

    goal: AttackGoal
    before: RecognisedFace
    after: RecognisedFace
    outcome: NetworkOutcome


class EvadedPhoto(NamedTuple):
    """A photo uint8 (h, w, 3), the PNG that was written and its pixels, and its attacked faces by their numbers."""

    photo: PhotoFile
    path: Path
    clean: ImageArray
    saved: ImageArray
    faces: dict[int, EvadedFace]


# ``attack(photo, crop box, target, attempt)``: target as the loss of the goal takes it; ``attempt`` fixes the start.
EvasionAttack = Callable[[ImageArray, CropBox, Any, int], RegionPerturbation]


@cache
def compile_evasion_attack(recogniser: Recogniser, goal: str, settings: EvadeSettings) -> EvasionAttack:
    """Compile the attack of ``evade_faces`` for a goal of ``GOAL_OUTPUTS``, once for each recogniser and settings."""
    momentum, strengths = METHODS[settings.method]
    loss = RECOGNISER_LOSSES[goal](getattr(recogniser, GOAL_OUTPUTS[goal]))
    transform = compose(strengths, settings.seed)
    height, width, _ = recogniser.image_shape

    def crop_loss(inputs: tuple[tf.Tensor, tf.Tensor], truth: tuple[Any, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        (blocks, draw), (target, places) = inputs, truth
        crop = sample_crop(blocks, places)
        return loss(crop if transform is None else transform(crop, draw), target)

    step = STEP * settings.eps / settings.iterations
    search = AttackSettings(settings.eps, settings.iterations, step, momentum, seed=settings.seed)
    # The draw is passed on with the blocks: the random transforms apply to the crop, not to the blocks.
    pgd = ATTACKS["pgd"](crop_loss, search, lambda blocks, draw: (blocks, draw))
    multiple = SAMPLES * max(height, width) + SAMPLES

    def attack(image: ImageArray, frame: CropBox, target: Any, attempt: int) -> RegionPerturbation:
        part = region(image, frame, (height, width))
        blocks, mask = _pad(part.blocks, multiple), _pad(sampled_mask(part), multiple)
        truth = (np.asarray(target)[np.newaxis], part.places[np.newaxis])
        adversarial = pgd(blocks[np.newaxis], truth, [attempt], mask[np.newaxis]).images[0]
        rows, columns = part.blocks.shape[:2]
        return RegionPerturbation(part, (adversarial[:rows, :columns] - part.blocks) * 255)

    return attack


def _pad(array: Floats, multiple: int) -> Floats:
    """Pad (r, c, k) with zeros below and on the right to multiples: few sizes, so few graphs are traced."""
    rows, columns = array.shape[:2]
    return np.pad(array, ((0, -rows % multiple), (0, -columns % multiple), (0, 0)))


def evade_faces(
    recogniser: PhotoRecogniser,
    image: ImageArray,
    faces: Sequence[RecognisedFace],
    goals: Sequence[AttackGoal],
    settings: EvadeSettings,
    redetect: bool = True,
    report_progress: ProgressCallback = lambda share, message: None,
) -> list[RegionPerturbation]:
    """Return the best perturbation of each face for its goal, scored on the 8-bit photo.

    Args:
        image: Photo uint8 (h, w, 3).
        faces: Faces of the photo.
        goals: Goal of each face.
        redetect: Whether faces are detected again in the changed photo, or expected at their old places.
        report_progress: Called before each face; an exception that it raises ends the search.
    """

    def attempt_fn(remaining: list[int], attempt: int) -> dict[int, RegionPerturbation]:
        changes = {}
        for position, number in enumerate(remaining):
            report_progress((attempt + position / len(remaining)) / settings.attempts, "Evading the recogniser")
            attack = compile_evasion_attack(recogniser.recogniser, goals[number].name, settings)
            changes[number] = attack(image, faces[number].frame, goals[number].target, attempt)
        return changes

    def score_fn(changes: Sequence[RegionPerturbation]) -> list[float]:
        changed = apply_perturbations(image, changes, settings.eps)
        return [_attempt_score(face) for face in recognise_again(recogniser, changed, faces, goals, redetect)]

    return best_of_restarts(len(faces), settings.attempts, attempt_fn, score_fn)


def evade_photos(
    recogniser: PhotoRecogniser,
    goal_fn: Callable[[RecognisedFace], AttackGoal],
    settings: EvadeSettings,
    photos: Sequence[PhotoFile],
    out: Path,
    selector: FaceSelector,
    on_error: MessageCallback,
) -> Iterator[EvadedPhoto]:
    """Attack the selected faces of each photo that can be read, and measure the outcome on the PNG that was written.

    Raises:
        UserError: A PNG cannot be written.
    """
    redetect = selector.box is None
    for photo, image in read_photos(photos, "attack", on_error):
        selected = dict(select_faces(recogniser.find, photo, image, selector, on_error))
        if not selected:
            continue
        before, path = recognise_faces(recogniser, image, list(selected.values())), output_path(photo, out)
        goals = [goal_fn(face) for face in before]
        changes = evade_faces(recogniser, image, before, goals, settings, redetect)
        save_photo(apply_perturbations(image, changes, settings.eps), path)
        saved = read_image(path)
        faces = recognise_again(recogniser, saved, before, goals, redetect)
        yield EvadedPhoto(photo, path, image, saved, dict(zip(selected, faces, strict=True)))


def recognise_again(
    recogniser: PhotoRecogniser,
    image: ImageArray,
    faces: Sequence[RecognisedFace],
    goals: Sequence[AttackGoal],
    redetect: bool,
) -> list[EvadedFace]:
    """Recognise faces in a changed photo; one that is not detected again is cropped at its old place."""
    detected = recogniser.find(image) if redetect else []
    places = [match_face(face.face, detected) for face in faces]
    current = [place or face.face for place, face in zip(places, faces, strict=True)]
    name, evaded = recogniser.recogniser.name, []
    for number, after in enumerate(recognise_faces(recogniser, image, current)):
        goal, before, found = goals[number], faces[number], not redetect or places[number] is not None
        outcome = recogniser_outcome(number, name, goal, before, after, found)
        evaded.append(EvadedFace(goal, before, after, outcome))
    return evaded


def _attempt_score(face: EvadedFace) -> float:
    """Score an attempt: infinite on success; a face that is to be matched has to be found, too."""
    if is_success(face.goal, face.outcome):
        return np.inf
    score = face.outcome.score_after or 0.0
    if face.goal.name in TARGETED_GOALS:
        return score if face.outcome.label != "not found" else score - NOT_FOUND_PENALTY
    return -score

"""Fool a recogniser with a collection of photos, and look at what was written as anybody would: from the file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.recognisers import RECOGNISER_LOSSES
from visor.attacks.evasion.quantise import eps_in_levels
from visor.attacks.evasion.registry import ATTACKS
from visor.attacks.evasion.transforms import compose
from visor.core.tf import tf
from visor.core.types import Floats, ImageArray, MessageCallback
from visor.data.crops import SAMPLES, CropBox, CropRegion, paste_perturbation, region, sampled_mask
from visor.data.images import read_image
from visor.models.recognisers.base import Recogniser
from visor.photos.faces import FaceSelector, match_face, select_faces
from visor.photos.files import PhotoFile, output_path, read_photos, save_photo
from visor.photos.identify import PhotoRecogniser, RecognisedFace, recognise_faces
from visor.photos.restarts import best_of_restarts

GOAL_OUTPUTS = {"impersonate": "embed", "dodge": "embed", "misclassify": "logits", "target_class": "logits"}
STEP = 2.5  # times eps / iterations


class PhotoAttackMethod(NamedTuple):
    """A momentum of MI-FGSM and the random transforms, with their strengths, that the change has to survive."""

    momentum: float
    transforms: Mapping[str, float]


METHODS = {
    "pgd": PhotoAttackMethod(0.0, {}),
    "robust": PhotoAttackMethod(
        1.0, {"crop": 0.05, "scale": 0.05, "noise": 0.02}
    ),  # a face that is found anew moves by some 4 %
}


class EvadeSettings(NamedTuple):
    """Bound ``eps`` in [0, 1], gradient steps, which of ``METHODS``, and the seed of all that is drawn."""

    eps: float
    iterations: int
    method: str = "robust"
    seed: int = 1


class RegionPerturbation(NamedTuple):
    """A region of a photo, and by how many levels of 255 each of its blocks changes, float32 (r, c, 3)."""

    part: CropRegion
    levels: Floats


EvasionAttack = Callable[[ImageArray, CropBox, Any, int], RegionPerturbation]


def compile_evasion_attack(recogniser: Recogniser, goal: str, settings: EvadeSettings) -> EvasionAttack:
    """Return ``fool(photo, frame, truth, number)`` → what changes in a photo uint8 (h, w, 3) to reach the goal.

    goal: of ``GOALS``, with a view that the recogniser has. truth: what the goal takes, for one face, without the axis
    of the batch. number: makes the random start.
    """
    method = METHODS[settings.method]
    loss = RECOGNISER_LOSSES[goal](getattr(recogniser, GOAL_OUTPUTS[goal]))
    transform = compose(method.transforms, settings.seed)
    height, width, _ = recogniser.image_shape

    def of_crop(drawn: tuple[tf.Tensor, tf.Tensor], truth: tuple[Any, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        (blocks, draw), (wanted, places) = drawn, truth
        crop = sample_crop(blocks, places)
        return loss(crop if transform is None else transform(crop, draw), wanted)

    search = AttackSettings(
        settings.eps,
        settings.iterations,
        STEP * settings.eps / settings.iterations,
        method.momentum,
        seed=settings.seed,
    )
    # The draw is handed on with the blocks: what is cropped, zoomed and noisy at random is the crop.
    attack = ATTACKS["pgd"](of_crop, search, lambda blocks, draw: (blocks, draw))

    unit = SAMPLES * max(height, width) + SAMPLES

    def fool(image: ImageArray, frame: CropBox, truth: Any, number: int) -> RegionPerturbation:
        part = region(image, frame, (height, width))
        blocks, mask = _padded(part.blocks, unit), _padded(sampled_mask(part), unit)
        given = (np.asarray(truth)[np.newaxis], part.places[np.newaxis])
        found = attack(blocks[np.newaxis], given, [number], mask[np.newaxis]).images[0]
        rows, columns = part.blocks.shape[:2]
        return RegionPerturbation(part, (found[:rows, :columns] - part.blocks) * 255)

    return fool


def apply_perturbations(image: ImageArray, changes: Iterable[RegionPerturbation], eps: float) -> ImageArray:
    """Return a photo uint8 (h, w, 3) with these changes, no value of it more than ``eps``, in [0, 1], from its own."""
    result = image
    for part, change in changes:
        result = paste_perturbation(result, image, part, change, eps_in_levels(eps))
    return result


def sample_crop(blocks: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Return ``visor.data.crops.crop`` of regions, not yet rounded: float32 (n, h, w, 3).

    blocks: (n, r, c, 3). places: (n, SAMPLES·h, SAMPLES·w, 2), rows and columns in them.
    """
    rows, columns = blocks.shape[1:3]
    pixels = tf.reshape(blocks, (-1, rows * columns, 3))
    low = tf.cast(tf.floor(places), tf.int32)
    high = tf.minimum(low + 1, [rows - 1, columns - 1])
    down, right = tf.split(places - tf.floor(places), 2, axis=-1)
    samples = tf.zeros_like(places[..., :1])
    for row, vertical in ((low, 1.0 - down), (high, down)):
        for column, across in ((low, 1.0 - right), (high, right)):
            flat = row[..., 0] * columns + column[..., 1]
            samples += tf.gather(pixels, flat, batch_dims=1) * vertical * across
    height, width = (length // SAMPLES for length in places.shape[1:3])
    return tf.reduce_mean(tf.reshape(samples, (-1, height, SAMPLES, width, SAMPLES, 3)), axis=(2, 4))


def _padded(array: Floats, unit: int) -> Floats:
    """Return (r, c, k) with zeros below and to the right, up to multiples of ``unit``: two sizes, so two graphs."""
    rows, columns = array.shape[:2]
    return np.pad(array, ((0, -rows % unit), (0, -columns % unit), (0, 0)))


TARGETED_GOALS = ("impersonate", "target_class")  # goals that want a match; the others want none


class AttackGoal(NamedTuple):
    """What is wanted: a goal, what the search is told of a face, and the similarity from which two are one person."""

    goal: str
    truth: Callable[[RecognisedFace], Any]
    threshold: float


class EvadedFace(NamedTuple):
    """A face before, what is made of it after, and whether it is still found; if not, its old place was looked at."""

    number: int
    before: RecognisedFace
    after: RecognisedFace
    found: bool
    truth: Any


class EvadedPhoto(NamedTuple):
    """A photo uint8 (h, w, 3), the PNG that was written, what is in that, and its fooled faces."""

    photo: PhotoFile
    path: Path
    clean: ImageArray
    saved: ImageArray
    faces: list[EvadedFace]


def evade_photos(
    looker: PhotoRecogniser,
    settings: EvadeSettings,
    aim: AttackGoal,
    attempts: int,
    photos: Sequence[PhotoFile],
    out: Path,
    choice: FaceSelector,
    refuse: MessageCallback,
) -> Iterator[EvadedPhoto]:
    """Perturb the faces of each photo and write it; what came of them is what is seen in the PNG, read back.

    A face is searched for up to ``attempts`` changes, until one reaches the aim; else the best is taken.

    Raises:
        UserError: a PNG cannot be written.
    """
    fool = compile_evasion_attack(looker.recogniser, aim.goal, settings)
    for photo, image in read_photos(photos, "fool", refuse):
        chosen = select_faces(looker.find, photo, image, choice, refuse)
        if not chosen:
            continue
        before = recognise_faces(looker, image, [face for _, face in chosen])
        faces = [
            EvadedFace(number, known, known, True, aim.truth(known))
            for (number, _), known in zip(chosen, before, strict=True)
        ]
        path = output_path(photo, out)
        save_photo(_search(looker, fool, settings.eps, aim, attempts, image, faces, choice), path)
        saved = read_image(path, None)
        yield EvadedPhoto(photo, path, image, saved, _recognise_again(looker, saved, faces, choice))


def _search(
    looker: PhotoRecogniser,
    fool: EvasionAttack,
    eps: float,
    aim: AttackGoal,
    attempts: int,
    image: ImageArray,
    faces: list[EvadedFace],
    choice: FaceSelector,
) -> ImageArray:
    """Return the photo with the best change of each face, as the onlooker sees them all in one photo."""

    def tried(left: list[int], attempt: int) -> dict[int, RegionPerturbation]:
        return {number: fool(image, faces[number].before.frame, faces[number].truth, attempt) for number in left}

    def gains(changes: Sequence[RegionPerturbation]) -> list[float]:
        return [
            np.inf if is_success(aim.goal, face, aim.threshold) else _attempt_score(aim.goal, face)
            for face in _recognise_again(looker, apply_perturbations(image, changes, eps), faces, choice)
        ]

    return apply_perturbations(image, best_of_restarts(len(faces), attempts, tried, gains), eps)


def match_score(goal: str, known: RecognisedFace, truth: Any) -> float:
    """Return the similarity to an embedding (d,), or the probability of a class."""
    if GOAL_OUTPUTS[goal] == "embed":
        return float(known.embedding @ truth)
    return float(known.probabilities[truth])


def match_outcome(goal: str, face: EvadedFace, threshold: float) -> str:
    """Return whether the face passes for what it is compared with: ``matched``, ``not matched``, or ``not found``."""
    if not face.found:
        return "not found"
    if GOAL_OUTPUTS[goal] == "embed":
        return "matched" if match_score(goal, face.after, face.truth) >= threshold else "not matched"
    return "matched" if int(face.after.probabilities.argmax()) == int(face.truth) else "not matched"


def is_success(goal: str, face: EvadedFace, threshold: float) -> bool:
    """Return whether the verdict is what the goal wants."""
    return (match_outcome(goal, face, threshold) == "matched") == (goal in TARGETED_GOALS)


def _attempt_score(goal: str, face: EvadedFace) -> float:
    gain = match_score(goal, face.after, face.truth)
    return (gain if face.found else gain - 2.0) if goal in TARGETED_GOALS else -gain


def _recognise_again(
    looker: PhotoRecogniser, image: ImageArray, faces: Sequence[EvadedFace], choice: FaceSelector
) -> list[EvadedFace]:
    """Return the faces as they are now in a photo."""
    there = [] if choice.box else looker.find(image)
    places = [match_face(face.before.face, there) for face in faces]
    now = recognise_faces(looker, image, [place or face.before.face for place, face in zip(places, faces, strict=True)])
    return [
        face._replace(after=known, found=bool(choice.box or place))
        for face, known, place in zip(faces, now, places, strict=True)
    ]

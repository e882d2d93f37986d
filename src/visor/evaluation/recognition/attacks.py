"""Faces under each condition: clean, with noise, attacked and read back from disk, saved as JPEG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.attacks.evasion.loop import Attack, AttackSettings
from visor.attacks.evasion.losses.recognisers import RECOGNISER_LOSSES, ModelOutput
from visor.attacks.evasion.quantise import quantise_within_eps, random_sign_noise
from visor.attacks.evasion.registry import ATTACKS
from visor.attacks.evasion.resampling import sample_crop
from visor.attacks.evasion.transforms import compose
from visor.core.errors import UserError
from visor.core.params import MethodsAttackParams
from visor.core.types import Floats, ImageArray, Rows
from visor.data.face_set import FaceBatch, FaceSet, open_faces, write_faces
from visor.evaluation.conditions import Condition, save_images

# The loss of each goal, and its sign: dodging is impersonation the other way, so that one graph serves both.
GOAL_SIGNS = {
    "impersonate_nearest": ("impersonate", 1.0),
    "impersonate_furthest": ("impersonate", 1.0),
    "impersonate_named": ("impersonate", 1.0),
    "dodge": ("impersonate", -1.0),
    "misclassify": ("misclassify", 1.0),
    "target_class": ("misclassify", -1.0),
}


class FaceBatches(NamedTuple):
    """Rows (n,) of a FaceSet, read ``batch`` at a time by each stream."""

    faces: FaceSet
    rows: Rows
    batch: int

    def slices(self) -> Iterator[slice]:
        """Yield the part of ``rows`` in each batch."""
        for begin in range(0, len(self.rows), self.batch):
            yield slice(begin, begin + self.batch)

    def stream(self) -> Iterator[ImageArray]:
        """Yield images uint8 (k, h, w, 3)."""
        for part in self.slices():
            yield self.faces.read(self.rows[part])


PlacesFn = Callable[[ImageArray], Floats]


class AttackedFaces(NamedTuple):
    """Faces (n,) to attack."""

    clean: FaceBatches
    wanted: dict[str, NDArray[Any]]  # embeddings or classes (n, …) that the loss of each goal compares with
    folder: Path  # of the attacked faces
    places: PlacesFn | None = None  # clean images → where the network's crops sample them; None: it is shown the images

    def path(self, goal: str, condition: Condition) -> Path:
        """Return the file of the faces attacked under a condition, or under that which JPEG is applied to."""
        return self.folder / goal / condition.file_name


def attack_jobs(
    model: ModelOutput,
    faces: AttackedFaces,
    conditions: Sequence[Condition],
    settings: MethodsAttackParams,
    seed: int,
) -> Iterator[Callable[[], None]]:
    """Yield jobs that write the attacked faces of the conditions as 8-bit images.

    A job is one method and number of steps: one graph serves all sizes, and goals that differ in their sign.
    ``model``: images → embeddings or logits.
    """
    groups: dict[tuple[str, int], list[Condition]] = {}
    for condition in conditions:
        if condition.kind == "attack":
            groups.setdefault((condition.method, condition.iterations), []).append(condition)
    for group in groups.values():
        yield partial(_attack_conditions, model, faces, group, settings, seed)


def compile_condition_attack(
    model: ModelOutput, loss_name: str, condition: Condition, settings: MethodsAttackParams, seed: int
) -> Attack:
    """Compile the attack of a condition; its targets are what is wanted, (n, …), and signs (n,).

    Where the network looks at crops of the images, their places (``sample_crop``) come third.

    Raises:
        UserError: Params name an unknown transform, or a momentum for an algorithm without it.
    """
    method, loss = settings.methods[condition.method], RECOGNISER_LOSSES[loss_name](model)
    if method.momentum and method.algorithm != "pgd":
        raise UserError(
            f"params.yaml: methods.{condition.method}.momentum is {method.momentum:g}, but "
            f"{method.algorithm} has its own; remove it"
        )

    def signed(images: Any, targets: Any) -> tuple[Any, Any]:
        wanted, signs, *places = targets
        values, success = loss(sample_crop(images, *places) if places else images, wanted)
        return signs * values, success & (signs > 0)  # With the sign turned, success is another.

    search = AttackSettings(
        eps=condition.bound,
        iterations=condition.iterations,
        step=settings.relative_step * condition.bound / condition.iterations,
        momentum=method.momentum,
        random_start=settings.random_start,
        samples=method.eot_samples,
        seed=seed,
    )
    return ATTACKS[method.algorithm](signed, search, compose(method.transforms, seed))


def condition_images(goal: str, condition: Condition, faces: AttackedFaces, seed: int) -> Iterator[ImageArray]:
    """Yield the faces of a condition, in the batches of the clean ones; attacked ones are read from their file."""
    clean = faces.clean
    shown = clean
    if condition.iterations:
        stored = open_faces(faces.path(goal, condition))
        shown = FaceBatches(stored, np.arange(len(stored)), clean.batch)
    for part, images in zip(clean.slices(), shown.stream(), strict=True):
        if condition.kind == "noise":
            images = random_sign_noise(images, condition.bound, seed, clean.rows[part])
        yield save_images(images, condition)


def _attack_conditions(
    model: ModelOutput,
    faces: AttackedFaces,
    conditions: Sequence[Condition],
    settings: MethodsAttackParams,
    seed: int,
) -> None:
    """Write the faces of conditions that differ in size alone, for every goal."""
    largest = max(conditions, key=lambda condition: condition.eps)
    compiled: dict[str, Attack] = {}
    for goal, wanted in faces.wanted.items():
        loss_name, sign = GOAL_SIGNS[goal]
        if loss_name not in compiled:
            compiled[loss_name] = compile_condition_attack(model, loss_name, largest, settings, seed)
        for condition in conditions:
            scale = condition.eps / largest.eps if largest.eps else 0.0
            _write(compiled[loss_name], faces, (wanted, sign), scale, condition.bound, faces.path(goal, condition))


def _write(
    attack: Attack, case: AttackedFaces, targets: tuple[NDArray[Any], float], scale: float, bound: float, path: Path
) -> None:
    """Write attacked faces; ``scale`` times the attack's own size is ``bound``."""
    clean, faces, (wanted, sign) = case.clean, case.clean.faces, targets

    def attacked() -> Iterator[FaceBatch]:
        for part, images in zip(clean.slices(), clean.stream(), strict=True):
            rows, ones = clean.rows[part], np.ones(len(images), np.float32)
            places = () if case.places is None else (case.places(images),)
            result = attack(images, (wanted[part], sign * ones, *places), rows, scale * ones[:, None, None, None])
            quantised = quantise_within_eps(result.images, images, bound)
            yield FaceBatch(quantised, faces.labels[rows], faces.videos[rows], rows.astype(np.int32))

    write_faces(path, attacked(), faces.image_shape, faces.label_names, faces.source, faces.licence)

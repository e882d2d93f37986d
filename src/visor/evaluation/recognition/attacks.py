"""What is done to faces before a recogniser sees them: nothing, noise, an attack and a file on disk, JPEG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.attacks.evasion.loop import Attack, AttackSettings
from visor.attacks.evasion.losses.recognisers import RECOGNISER_LOSSES, ModelOutput
from visor.attacks.evasion.quantise import quantise_within_eps, random_sign_noise
from visor.attacks.evasion.registry import ATTACKS
from visor.attacks.evasion.transforms import compose
from visor.core.errors import UserError
from visor.core.params import RecognitionAttackParams
from visor.core.types import ImageArray, Rows
from visor.data.face_set import FaceBatch, FaceSet, open_faces, write_faces
from visor.data.images import jpeg_round_trip

# A goal, and whether it is raised or lowered: dodging is impersonation the other way, so that one graph does both.
GOAL_SIGNS = {
    "impersonate": ("impersonate", 1.0),
    "dodge": ("impersonate", -1.0),
    "misclassify": ("misclassify", 1.0),
    "target_class": ("misclassify", -1.0),
}


class Condition(NamedTuple):
    """A line of the table; ``kind`` is clean, noise, attack, or jpeg: the attacked faces saved with this quality."""

    name: str
    title: str
    kind: str
    method: str = ""
    eps: float = 0.0
    iterations: int = 0
    quality: int = 0


class FaceBatches(NamedTuple):
    """Rows (n,) of a file of faces, read ``batch`` at a time whenever they are wanted."""

    faces: FaceSet
    rows: Rows
    batch: int

    def parts(self) -> Iterator[slice]:
        """Yield the places of each batch."""
        for begin in range(0, len(self.rows), self.batch):
            yield slice(begin, begin + self.batch)

    def stream(self) -> Iterator[ImageArray]:
        """Yield images uint8 (k, h, w, 3)."""
        for part in self.parts():
            yield self.faces.read(self.rows[part])


class AttackedFaces(NamedTuple):
    """Faces (n,) that are attacked, what each goal of ``AIMS`` wants of them, (n, …), and where its files go."""

    clean: FaceBatches
    wanted: dict[str, NDArray[Any]]
    folder: Path

    def path(self, goal: str, each: Condition) -> Path:
        """Return the file of the faces attacked under a condition, or under the one that JPEG is done to."""
        return self.folder / goal / f"{each.method}_{each.eps:g}x{each.iterations}.h5"


def conditions(settings: RecognitionAttackParams) -> list[Condition]:
    """Return the lines of the table: clean, noise of each size, each method × strength, the last one as JPEG."""
    sizes = dict.fromkeys(each.eps for each in settings.strengths)
    found = [Condition("clean", "clean", "clean")]
    found += [Condition(f"noise_{eps:g}", f"noise {eps:g}", "noise", eps=eps) for eps in sizes]
    for method in settings.methods:
        title = method.replace("_", " ")
        for eps, steps in ((each.eps, each.iterations) for each in settings.strengths):
            found.append(Condition(f"{method}_{eps:g}x{steps}", f"{title} {eps:g}", "attack", method, eps, steps))
        last = found[-1]
        for quality in settings.jpeg:
            name, title = f"jpeg{quality}_{last.name}", f"{last.title}, JPEG {quality}"
            found.append(last._replace(name=name, title=title, kind="jpeg", quality=quality))
    return list(dict.fromkeys(found))


def strongest_conditions(
    plan: list[Condition], settings: RecognitionAttackParams, jpeg: bool = True
) -> list[Condition]:
    """Return the conditions of the last strength, with or without JPEG, and the clean one."""
    last = settings.strengths[-1]
    own = [each for each in plan if each.eps in (0.0, last.eps) and each.iterations in (0, last.iterations)]
    return [each for each in own if jpeg or not each.quality]


def attack_jobs(
    view: ModelOutput, victims: AttackedFaces, plan: list[Condition], settings: RecognitionAttackParams, seed: int
) -> Iterator[Callable[[], None]]:
    """Yield jobs that write the attacked faces of a plan, eight bits a value.

    A job is a method and a number of steps: one graph serves all sizes, and goals that differ in their sign.
    view: what the goals see of a recogniser, embeddings or logits.
    """
    attacks = [each for each in plan if each.kind == "attack"]
    for method, steps in dict.fromkeys((each.method, each.iterations) for each in attacks):
        own = [each for each in attacks if (each.method, each.iterations) == (method, steps)]
        yield partial(_attack_conditions, view, victims, own, settings, seed)


def compile_condition_attack(
    view: ModelOutput, aim: str, most: Condition, settings: RecognitionAttackParams, seed: int
) -> Attack:
    """Return the attack of a condition on a goal; its truth is a pair: what is wanted, (n, …), and signs (n,).

    Raises:
        UserError: params name a transform that there is none of, or a momentum that the search does not take.
    """
    method, loss = settings.methods[most.method], RECOGNISER_LOSSES[aim](view)
    if method.momentum and method.algorithm != "pgd":
        raise UserError(
            f"params.yaml: recognition_attack.methods.{most.method}.momentum is {method.momentum:g}, but "
            f"{method.algorithm} has its own; remove it"
        )

    def signed(images: Any, truth: Any) -> tuple[Any, Any]:
        values, done = loss(images, truth[0])
        return truth[1] * values, done & (truth[1] > 0)  # turned round, it is done elsewhere

    search = AttackSettings(
        eps=most.eps,
        iterations=most.iterations,
        step=settings.relative_step * most.eps / most.iterations,
        momentum=method.momentum,
        random_start=settings.random_start,
        samples=method.eot_samples,
        seed=seed,
    )
    return ATTACKS[method.algorithm](signed, search, compose(method.transforms, seed))


def condition_images(goal: str, each: Condition, victims: AttackedFaces, seed: int) -> Iterator[ImageArray]:
    """Yield the faces of a condition, in the batches of the clean ones; what was attacked is read from its file."""
    clean = victims.clean
    if each.kind == "clean":
        yield from clean.stream()
    elif each.kind == "noise":
        for part, images in zip(clean.parts(), clean.stream(), strict=True):
            yield random_sign_noise(images, each.eps, seed, clean.rows[part])
    else:
        stored = open_faces(victims.path(goal, each))
        for images in FaceBatches(stored, np.arange(len(stored)), clean.batch).stream():
            yield np.stack([jpeg_round_trip(image, each.quality) for image in images]) if each.quality else images


def _attack_conditions(
    view: ModelOutput, victims: AttackedFaces, attacks: list[Condition], settings: RecognitionAttackParams, seed: int
) -> None:
    """Write the faces of conditions that differ in size alone, for every goal."""
    most = max(attacks, key=lambda each: each.eps)
    prepared: dict[str, Attack] = {}
    for goal, wanted in victims.wanted.items():
        aim, sign = GOAL_SIGNS[goal]
        attack = prepared.setdefault(aim, compile_condition_attack(view, aim, most, settings, seed))
        for each in attacks:
            _write(attack, victims.clean, (wanted, sign), each.eps / most.eps, each.eps, victims.path(goal, each))


def _write(
    attack: Attack, clean: FaceBatches, truth: tuple[NDArray[Any], float], share: float, eps: float, path: Path
) -> None:
    """Write attacked faces; ``share`` is that of the attack's own size which makes ``eps``."""
    faces = clean.faces

    def attacked() -> Iterator[FaceBatch]:
        for part, images in zip(clean.parts(), clean.stream(), strict=True):
            rows, ones = clean.rows[part], np.ones(len(images), np.float32)
            found = attack(images, (truth[0][part], truth[1] * ones), rows, share * ones[:, None, None, None])
            hidden = quantise_within_eps(found.images, images, eps)
            yield FaceBatch(hidden, faces.labels[rows], faces.videos[rows], rows.astype(np.int32))

    write_faces(path, attacked(), faces.image_shape, faces.label_names, faces.source, faces.licence)

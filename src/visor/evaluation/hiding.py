"""What is done to scenes before a detector sees them: nothing, noise, PGD and a file on disk, JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.errors import UserError
from visor.evaluation.canvases import Canvases, Stream
from visor.evasion.eight_bit import as_jpeg, sign_noise, to_eight_bit
from visor.evasion.objectives import DISTANCE, OBJECTIVES, face_masks
from visor.evasion.pgd import PGD, Attack, compile_pgd
from visor.faces import Images, Integers
from visor.params import Hiding, Strength
from visor.scenes import (
    IGNORE,
    PADDING,
    Boxes,
    Rows,
    Scene,
    Truth,
    letterbox,
    open_scenes,
    read_canvases,
    write_scenes,
)

if TYPE_CHECKING:
    from visor.detectors import Detector


class Condition(NamedTuple):
    """A line of the table; ``kind`` is clean, noise, pgd, or jpeg: the attacked scenes saved with this quality."""

    name: str
    title: str
    kind: str
    eps: float = 0.0
    iterations: int = 0
    quality: int = 0


def conditions(settings: Hiding) -> list[Condition]:
    """Return the lines of the table: clean, noise of each size, every strength, and the last one saved as JPEG."""
    last = settings.strengths[-1]
    found = [Condition("clean", "clean", "clean"), *(noise(each) for each in settings.strengths)]
    for eps, steps in ((each.eps, each.iterations) for each in settings.strengths):
        found.append(Condition(f"pgd_{eps:g}x{steps}", f"PGD {eps:g}, {steps} steps", "pgd", eps, steps))
    for quality in settings.jpeg:
        name = f"jpeg{quality}_{strength_name(last)}"
        title = f"PGD {last.eps:g}, JPEG {quality}"
        found.append(Condition(name, title, "jpeg", last.eps, last.iterations, quality))
    return list(dict.fromkeys(found))


def noise(strength: Strength) -> Condition:
    """Return the control of an attack: a random sign of the same size in every value."""
    return Condition(f"noise_{strength.eps:g}", f"noise {strength.eps:g}", "noise", strength.eps)


def strength_name(strength: Strength | Condition) -> str:
    """Name a strength, such as 0.02x40, and the file of the scenes attacked with it."""
    return f"{strength.eps:g}x{strength.iterations}"


def prepare(detector: Detector, objective: str | None, strength: Condition, settings: Hiding, seed: int) -> Attack:
    """Return PGD against a detector.

    Raises:
        UserError: it gives no gradient, or params name no objective for it.
    """
    if detector.candidates is None or objective is None:
        raise UserError(
            f"params.yaml: hiding.detectors: {detector.name} gives no gradient, or detectors.{detector.name} lacks "
            "an objective; drop the one or add the other"
        )
    step = settings.step * strength.eps / strength.iterations
    search = PGD(
        eps=strength.eps,
        iterations=strength.iterations,
        step=step,
        momentum=settings.momentum,
        random_start=settings.random_start,
        early_stop=settings.early_stop,
        precision=settings.precision,
        seed=seed,
    )
    loss = OBJECTIVES[objective](detector.candidates, detector.loss, detector.threshold, DISTANCE)
    return compile_pgd(loss, search)


def hide(attack: Attack, clean: Canvases, eps: float, settings: Hiding, path: Path) -> tuple[Integers, float]:
    """Write the attacked scenes, eight bits a value.

    Returns:
        The gradient steps int32 (n,) that each took, and the seconds that the attack took of all.
    """
    steps, seconds = [], []

    def attacked() -> Iterator[Scene]:
        for rows, images, truth in clean.numbered():
            start = perf_counter()
            found = attack(images, truth, rows, _may_change(clean, rows, truth, settings))
            seconds.append(perf_counter() - start)
            steps.append(found.steps)
            hidden = to_eight_bit(found.images, images, eps)
            yield from (_scene(clean, *parts) for parts in zip(rows, hidden, *truth, strict=True))

    write_scenes(path, attacked(), clean.scenes.source, clean.scenes.licence)
    return np.concatenate(steps), sum(seconds)


def changed(condition: Condition, clean: Canvases, settings: Hiding, seed: int, folder: Path) -> Stream:
    """Return the scenes of a condition as a stream; what was attacked is read back from ``folder``."""
    if condition.kind == "clean":
        return clean.stream()
    if condition.kind == "noise":
        return _noisy(clean, condition.eps, settings, seed)
    stored = saved(folder / f"{strength_name(condition)}.h5", clean)
    return stored if condition.kind == "pgd" else _compressed(stored, condition.quality)


def saved(path: Path, clean: Canvases) -> Stream:
    """Read attacked scenes back, in the batches of the clean ones."""
    scenes = open_scenes(path)
    return read_canvases(scenes, np.arange(len(scenes)), clean.side, clean.batch, clean.scenes.most)


def _noisy(clean: Canvases, eps: float, settings: Hiding, seed: int) -> Iterator[tuple[Images, Truth]]:
    """Yield scenes with a random sign of the same size in every value that the attack may change."""
    for rows, images, truth in clean.numbered():
        noise, masks = sign_noise(images, eps, seed, rows), _may_change(clean, rows, truth, settings)
        yield noise if masks is None else np.where(masks > 0, noise, images), truth


def _compressed(stream: Stream, quality: int) -> Iterator[tuple[Images, Truth]]:
    """Yield scenes as they come out of JPEG files of this quality."""
    for images, truth in stream:
        yield np.stack([as_jpeg(image, quality) for image in images]), truth


def _may_change(clean: Canvases, rows: Rows, truth: Truth, settings: Hiding) -> NDArray[np.float32] | None:
    """Return masks (k, side, side, 1), 1 where an attack may change pixels: not on the grey beside a picture.

    None where that is everywhere.
    """
    shapes = clean.scenes.shapes[rows]
    if settings.mask == "none" and (shapes[:, 0] == shapes[:, 1]).all():
        return None
    masks = np.stack([_picture(height, width, clean.side) for height, width in shapes])
    if settings.mask == "faces":
        masks *= face_masks(*truth, (clean.side, clean.side), settings.margin)
    return masks


def _picture(height: int, width: int, side: int) -> NDArray[np.float32]:
    """Return 1 where a letterboxed picture is and 0 beside it, (side, side, 1)."""
    black, _ = letterbox(np.zeros((height, width, 3), np.uint8), np.zeros((0, 4), np.float32), side)
    return (black[..., :1] == 0).astype(np.float32)


def _scene(clean: Canvases, row: int, image: Images, boxes: Boxes, kinds: Integers) -> Scene:
    """Return an attacked scene with the truth of its canvas."""
    real = kinds != PADDING
    part = slice(clean.scenes.starts[row], clean.scenes.starts[row + 1])
    attributes = clean.scenes.attributes[part]
    return Scene(clean.scenes.names[row], image, boxes[real], kinds[real] == IGNORE, attributes, "test")

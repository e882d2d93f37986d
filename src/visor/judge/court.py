"""What the commands do: files of network, autoencoder and images in, verdicts and numbers out."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from visor.errors import UserError
from visor.faces import Integers
from visor.judge import autoencoder, verdict
from visor.judge.networks import load_network
from visor.judge.pictures import Source, open_data, open_sources

Say = Callable[[str], None]


class Court(NamedTuple):
    """Network and autoencoder of images ``image_shape`` (h, w, 3), and the loss above which an image is poisoned."""

    net: keras.Model
    vae: keras.Model
    image_shape: tuple[int, int, int]
    threshold: float
    calibration: autoencoder.Calibration | None

    @property
    def num_classes(self) -> int:
        """How many people the network knows, which is also the verdict on a poisoned image."""
        return int(self.net.output_shape[-1])


def convene(net: Path, vae: Path, threshold: float | None) -> Court:
    """Load network and autoencoder; ``threshold`` replaces the one that the autoencoder's file brings.

    Raises:
        UserError: a file is refused, the two take different images, or there is no threshold.
    """
    network = load_network(net)
    coder, calibration = autoencoder.load(vae)
    shape = verdict.check(network, coder, str(net), str(vae))
    if threshold is None and calibration is not None:
        threshold = calibration.threshold
    if threshold is None or not isfinite(threshold):
        raise UserError(f"{vae} brings no threshold; give one with --threshold, or make a file with `visor fit-vae`")
    return Court(network, coder, shape, threshold, calibration)


def judge_images(court: Court, paths: Sequence[Path], input_scale: str, clean: Path | None, say: Say) -> Integers:
    """Return a verdict for each image of the files, in their order: int32 in [0, N].

    Raises:
        UserError: a file is refused; nothing is returned of the others then.
    """
    sources = open_sources(paths, court.image_shape)
    scale = _scale(court, input_scale, clean, sources[0]._replace(labels=None), say)
    return np.concatenate([part.verdicts for source in sources for part in _judged(court, scale, source)])


def evaluate_data(
    court: Court, path: Path, target: int | None, poisoned: bool | None, input_scale: str, clean: Path | None, say: Say
) -> dict[str, float]:
    """Return the numbers of ``verdict.evaluate`` on an HDF5 file, with the threshold and its calibration.

    ``target`` is the class that the file's poisons aim at. Without it, ``poisoned`` says that all labels are the target
    (None: they are if all are the same), as in the poisoned files of the contest.

    Raises:
        UserError: a file is refused, or labels are missing or do not fit.
    """
    source = open_data(path, court.image_shape)
    target = _target(source, court.num_classes, target, poisoned, say)
    honest = target is None or source.labels is None or bool((source.labels == target).all())
    # The true labels of poisoned images: the more of them the network gets right, the worse the scale.
    scale = _scale(court, input_scale, clean, source if honest else source._replace(labels=None), say)
    found = verdict.joined(list(_judged(court, scale, source)))
    numbers = verdict.evaluate(found, court.num_classes, source.labels, target)
    known = {} if court.calibration is None else court.calibration._asdict()
    calibration = {f"calibration_{name}": known[name] for name in ("mean", "std") if name in known}
    return {**numbers, "threshold": court.threshold, **calibration}


def _judged(court: Court, scale: int, source: Source) -> Iterator[verdict.Verdicts]:
    return verdict.judge(verdict.compile_judge(court.net, court.vae, court.threshold, scale, source), source)


def _scale(court: Court, input_scale: str, clean: Path | None, judged: Source, say: Say) -> int:
    if input_scale != "auto":
        return int(input_scale)
    scale, reason = verdict.choose_scale(court.net, open_data(clean, court.image_shape) if clean else judged)
    say(f"input scale {scale}: {reason}")
    return scale


def _target(source: Source, num_classes: int, target: int | None, poisoned: bool | None, say: Say) -> int | None:
    labels = source.labels
    if target is not None:
        if not 0 <= target < num_classes:
            raise UserError(f"--target {target} is no class of the network; name one from 0 to {num_classes - 1}")
        return target
    if labels is None:
        raise UserError(f"{source.name} has no 'label' to measure by; add it, or name the class of poisons by --target")
    if labels.max() >= num_classes:
        raise UserError(f"{source.name}: label goes up to {labels.max()}, but the network knows {num_classes} classes")
    one = bool((labels == labels[0]).all())
    if poisoned and not one:
        raise UserError(f"{source.name}: the labels are not all one target; name the class of poisons by --target")
    if poisoned is None and one and source.total > 1:
        say(f"all labels are {labels[0]}: taken for poisoned images and their target; --clean if they are not")
        poisoned = True
    return int(labels[0]) if poisoned else None

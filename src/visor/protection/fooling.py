"""Make a recogniser see another face in a photo: the search for a change of the photo's own pixels.

What is perturbed are the blocks of pixels that a face's crop is made of (``visor.crops``); the cut to the crop is part
of the graph, whichever way up the face is, so that nothing is lost on the way back to the photo.
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from visor.crops import SAMPLES, Floats, Frame, Region, paste, region, touched
from visor.evasion.eight_bit import levels
from visor.evasion.goals import GOALS
from visor.evasion.search import PGD
from visor.evasion.searches import SEARCHES
from visor.evasion.transforms import compose
from visor.faces import Images
from visor.recognisers.recogniser import Recogniser

VIEWS = {"impersonate": "embed", "dodge": "embed", "misclassify": "logits", "target_class": "logits"}
STEP = 2.5  # times eps / iterations


class Method(NamedTuple):
    """A momentum of MI-FGSM and the random transforms, with their strengths, that the change has to survive."""

    momentum: float
    transforms: Mapping[str, float]


METHODS = {
    "pgd": Method(0.0, {}),
    "robust": Method(1.0, {"crop": 0.05, "scale": 0.05, "noise": 0.02}),  # a face that is found anew moves by some 4 %
}


class Settings(NamedTuple):
    """Bound ``eps`` in [0, 1], gradient steps, which of ``METHODS``, and the seed of all that is drawn."""

    eps: float
    iterations: int
    method: str = "robust"
    seed: int = 1


class Change(NamedTuple):
    """A region of a photo, and by how many levels of 255 each of its blocks changes, float32 (r, c, 3)."""

    part: Region
    levels: Floats


Fool = Callable[[Images, Frame, Any, int], Change]


def compile_fool(recogniser: Recogniser, goal: str, settings: Settings) -> Fool:
    """Return ``fool(photo, frame, truth, number)`` → what changes in a photo uint8 (h, w, 3) to reach the goal.

    goal: of ``GOALS``, with a view that the recogniser has. truth: what the goal takes, for one face, without the axis
    of the batch. number: makes the random start.
    """
    method = METHODS[settings.method]
    loss = GOALS[goal](getattr(recogniser, VIEWS[goal]))
    transform = compose(method.transforms, settings.seed)
    height, width, _ = recogniser.image_shape

    def of_crop(drawn: tuple[tf.Tensor, tf.Tensor], truth: tuple[Any, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        (blocks, draw), (wanted, places) = drawn, truth
        crop = cut(blocks, places)
        return loss(crop if transform is None else transform(crop, draw), wanted)

    search = PGD(
        settings.eps,
        settings.iterations,
        STEP * settings.eps / settings.iterations,
        method.momentum,
        seed=settings.seed,
    )
    # The draw is handed on with the blocks: what is cropped, zoomed and noisy at random is the crop.
    attack = SEARCHES["pgd"](of_crop, search, lambda blocks, draw: (blocks, draw))

    unit = SAMPLES * max(height, width) + SAMPLES

    def fool(image: Images, frame: Frame, truth: Any, number: int) -> Change:
        part = region(image, frame, (height, width))
        blocks, mask = _padded(part.blocks, unit), _padded(touched(part), unit)
        given = (np.asarray(truth)[np.newaxis], part.places[np.newaxis])
        found = attack(blocks[np.newaxis], given, [number], mask[np.newaxis]).images[0]
        rows, columns = part.blocks.shape[:2]
        return Change(part, (found[:rows, :columns] - part.blocks) * 255)

    return fool


def applied(image: Images, changes: Iterable[Change], eps: float) -> Images:
    """Return a photo uint8 (h, w, 3) with these changes, no value of it more than ``eps``, in [0, 1], from its own."""
    result = image
    for part, change in changes:
        result = paste(result, image, part, change, levels(eps))
    return result


def cut(blocks: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Return ``visor.crops.cut`` of regions, not yet rounded: float32 (n, h, w, 3).

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

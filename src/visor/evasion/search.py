"""The frame of every search: what it is given, its start, the loop, and who leaves it early.

A search is what it remembers of each image and how it moves the images on. The whole of it is one graph: no step
returns to Python, and its cost is that of the gradients.
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from visor.evasion.gradients import Gradient, Loss, Seen, Transform, compile_gradient, precision


class PGD(NamedTuple):
    """How to search: at most ``iterations`` steps of ``step`` in the L∞ ball ``eps``, both in units of [0, 1].

    momentum: decay of MI-FGSM's memory, 0: none. early_stop: images that are done leave the batch. precision: of
    gradients, and of what tells whether an image is done; bfloat16 where the processor has it. seed: of the random
    start, uniform in the ball. samples: draws of a random transform, whose mean gradient is followed (expectation
    over transformation, Athalye et al. 2018, arXiv 1707.07397); an image is done when it is so in all of them.
    """

    eps: float
    iterations: int
    step: float
    momentum: float = 0.0
    random_start: bool = True
    early_stop: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 1
    samples: int = 1


class Result(NamedTuple):
    """Adversarial images float32 (n, h, w, c) in [0, 1], and the steps int32 (n,) that each of them took."""

    images: NDArray[np.float32]
    steps: NDArray[np.int32]


class Active(NamedTuple):
    """The k images that are not done."""

    rows: tf.Tensor  # (k,) their places in the batch
    images: tf.Tensor  # (k, h, w, c)
    lowest: tf.Tensor  # (k, h, w, c) where the ball and [0, 1] end
    highest: tf.Tensor
    memory: Any  # a nest of (k, …): what a search remembers
    truth: Any  # a nest of (k, …)
    share: tf.Tensor  # (k, h or 1, w or 1, 1) the masks


Attack = Callable[..., Result]
Search = Callable[..., Attack]  # (loss, settings: PGD, transform: Transform | None = None)
Remember = Callable[[tf.Tensor, tf.Tensor], Any]
Move = Callable[[Active, Seen, tf.Tensor], Active]


def compile_search(
    loss: Loss,
    settings: PGD,
    transform: Transform | None,
    remember: Remember,
    move: Move,
    turns: int,
    judged: bool = False,
) -> Attack:
    """Return ``attack(images, truth, numbers, masks=None)``, traced once for each shape of an image.

    loss: images float32 (k, h, w, c) in [0, 1] and their truth → (values (k,) to be raised, done bool (k,)), where
    each image's value depends on that image alone. transform: images and the number of the draw (of those of a step:
    step · samples + 0 … samples − 1) → what the loss sees instead, for attacks that shall survive it.
    remember: clean images and their start → memory. move: the active images, what was seen of them and the number of
    the turn → the active images after it; of these turns there are ``turns``. judged: the search wants to see values
    and done, too.

    The attack takes images uint8 or float32 in [0, 1] (n, h, w, c); their truth, any nest of arrays (n, …); their
    numbers int (n,) in the stream that they come from, which fix the random start whatever the batch; masks (n, h, w,
    1) in [0, 1], the share of bound and step that a pixel has.
    """
    wanted = {"gradient"} | ({"values", "done"} if judged else set()) | ({"done"} if settings.early_stop else set())
    gradient_of = compile_gradient(loss, transform, wanted, settings.samples)

    # Without loops in Python's words AutoGraph has nothing to do, and takes seconds to find that out.
    @tf.function(autograph=False)
    def search(images: tf.Tensor, truth: Any, numbers: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        active = _begin(settings, remember, images, truth, numbers, masks)
        state = (0, active, active.images, tf.fill(tf.shape(active.rows), settings.iterations))
        _, active, found, steps = tf.while_loop(
            lambda step, active, *_: (step < turns) & (tf.size(active.rows) > 0),
            lambda *state: _turn(gradient_of, move, settings.early_stop, *state),
            state,
        )
        return tf.tensor_scatter_nd_update(found, active.rows[:, None], active.images), steps

    return _over_arrays(search, settings.precision)


def _begin(
    settings: PGD, remember: Remember, images: tf.Tensor, truth: Any, numbers: tf.Tensor, masks: tf.Tensor
) -> Active:
    """Return all images of a batch at their start, clean or random."""
    clean = tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images
    share = tf.cast(masks, tf.float32)
    reach = settings.eps * share
    lowest, highest = tf.maximum(clean - reach, 0.0), tf.minimum(clean + reach, 1.0)
    start = clean
    if settings.random_start:
        start = tf.clip_by_value(clean + reach * _noise(tf.shape(clean), settings.seed, numbers), lowest, highest)
    return Active(tf.range(tf.shape(clean)[0]), start, lowest, highest, remember(clean, start), truth, share)


def _turn(
    gradient_of: Gradient,
    move: Move,
    early_stop: bool,
    step: tf.Tensor,
    active: Active,
    found: tf.Tensor,
    steps: tf.Tensor,
) -> tuple[tf.Tensor, Active, tf.Tensor, tf.Tensor]:
    """Move the active images on; put those that are done before it into ``found``."""
    seen = gradient_of(active.images, active.truth, step)
    if early_stop:
        ready, open_ = tf.where(seen["done"]), tf.where(~seen["done"])[:, 0]
        leaving = tf.gather_nd(active.rows, ready)[:, None]
        found = tf.tensor_scatter_nd_update(found, leaving, tf.gather_nd(active.images, ready))
        steps = tf.tensor_scatter_nd_update(steps, leaving, tf.fill(tf.shape(leaving)[:1], step))
        active, seen = tf.nest.map_structure(lambda part: tf.gather(part, open_), (active, seen))
    gradient = seen["gradient"]
    gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)  # what is not a number moves nothing
    return step + 1, move(active, {**seen, "gradient": gradient}, step), found, steps


def _over_arrays(search: Any, kind: str) -> Attack:
    """Return the attack, which takes and gives arrays; a last batch that is smaller is not traced anew."""

    def attack(images: Any, truth: Any, numbers: Any, masks: Any = None) -> Result:
        everywhere = np.ones((len(images), 1, 1, 1), np.float32)
        given = (images, truth, np.asarray(numbers, np.int64), everywhere if masks is None else masks)
        arguments = tf.nest.map_structure(tf.convert_to_tensor, given)
        shapes = tf.nest.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), arguments)
        with precision(kind):
            found, steps = search.get_concrete_function(*shapes)(*arguments)
        return Result(found.numpy(), steps.numpy())

    return attack


def _noise(shape: tf.Tensor, seed: int, numbers: tf.Tensor) -> tf.Tensor:
    """Return noise of a shape (n, h, w, c), uniform in [−1, 1), an image's a function of seed and its number."""

    def draw(number: tf.Tensor) -> tf.Tensor:
        key = tf.stack([tf.constant(seed, tf.int64), number])
        return tf.random.stateless_uniform(shape[1:], key, -1.0, 1.0, alg="philox")

    return tf.map_fn(draw, numbers, fn_output_signature=tf.float32)

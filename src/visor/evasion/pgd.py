"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083), the one loop for every model and objective.

In the L∞ ball of radius eps around an image x, cut by the range [0, 1] of pixels, it climbs the loss L:

    x ← clip(x + step · sign ∇L(x))        with momentum (Dong et al. 2018, arXiv 1710.06081):  sign(g),
                                            g ← momentum · g + ∇L / ‖∇L‖₁

The whole search is one graph: no step of it returns to Python, and its cost is that of the gradients.
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Loss = Callable[[tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor]]
Transform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Gradient = Callable[[tf.Tensor, Any, tf.Tensor], tuple[tf.Tensor, Any]]


class PGD(NamedTuple):
    """How to search: at most ``iterations`` steps of ``step`` in the L∞ ball ``eps``, both in units of [0, 1].

    momentum: decay of MI-FGSM's memory, 0: none. early_stop: images that are done leave the batch. precision: of
    gradients, and of what tells whether an image is done; bfloat16 where the processor has it. seed: of the random
    start, uniform in the ball.
    """

    eps: float
    iterations: int
    step: float
    momentum: float = 0.0
    random_start: bool = True
    early_stop: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 1


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
    memory: tf.Tensor  # (k, h, w, c) of earlier gradients
    truth: Any  # a nest of (k, …)


Attack = Callable[..., Result]


def compile_pgd(loss: Loss, settings: PGD, transform: Transform | None = None) -> Attack:
    """Return ``attack(images, truth, numbers, masks=None)``, traced once for each shape of an image.

    loss: images float32 (k, h, w, c) in [0, 1] and their truth → (values (k,) to be raised, done bool (k,)), where
    each image's value depends on that image alone. transform: images and the number of the step → what the loss sees
    instead, for attacks that shall survive it.

    The attack takes images uint8 or float32 in [0, 1] (n, h, w, c); their truth, any nest of arrays (n, …); their
    numbers int (n,) in the stream that they come from, which fix the random start whatever the batch; masks (n, h, w,
    1) that are 1 where an image may change.
    """
    gradient_of = _compile_gradient(loss, transform, settings.early_stop)

    @tf.function
    def search(images: tf.Tensor, truth: Any, numbers: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        active = _begin(settings, images, truth, numbers, masks)
        state = (0, active, active.images, tf.fill(tf.shape(active.rows), settings.iterations))
        _, active, found, steps = tf.while_loop(
            lambda step, active, *_: (step < settings.iterations) & (tf.size(active.rows) > 0),
            lambda *state: _climb(gradient_of, settings, *state),
            state,
        )
        return tf.tensor_scatter_nd_update(found, active.rows[:, None], active.images), steps

    def attack(images: Any, truth: Any, numbers: Any, masks: Any = None) -> Result:
        everywhere = np.ones((len(images), 1, 1, 1), np.float32)
        given = (images, truth, np.asarray(numbers, np.int64), everywhere if masks is None else masks)
        arguments = tf.nest.map_structure(tf.convert_to_tensor, given)
        # A last batch that is smaller must not be traced anew.
        shapes = tf.nest.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), arguments)
        with _precision(settings.precision):
            found, steps = search.get_concrete_function(*shapes)(*arguments)
        return Result(found.numpy(), steps.numpy())

    return attack


def _begin(settings: PGD, images: tf.Tensor, truth: Any, numbers: tf.Tensor, masks: tf.Tensor) -> Active:
    """Return all images of a batch at their start, clean or random."""
    clean = tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images
    reach = settings.eps * tf.cast(masks, tf.float32)
    lowest, highest = tf.maximum(clean - reach, 0.0), tf.minimum(clean + reach, 1.0)
    start = clean
    if settings.random_start:
        start = tf.clip_by_value(clean + reach * _noise(tf.shape(clean), settings.seed, numbers), lowest, highest)
    return Active(tf.range(tf.shape(clean)[0]), start, lowest, highest, tf.zeros_like(clean), truth)


def _compile_gradient(loss: Loss, transform: Transform | None, wanted: bool) -> Gradient:
    """Return images (k, h, w, c), truth, number of the step → gradient of the loss, and what is done, if wanted."""

    # Left a function of its own: inside a loop oneDNN overlooks some pooling layers, by chance, and these cost a third.
    @tf.function(experimental_attributes={"_noinline": True})
    def gradient(images: tf.Tensor, truth: Any, step: tf.Tensor) -> tuple[tf.Tensor, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            values, done = loss(images if transform is None else transform(images, step), truth)
        return tape.gradient(values, images), done if wanted else None

    return gradient


def _climb(
    gradient_of: Gradient, settings: PGD, step: tf.Tensor, active: Active, found: tf.Tensor, steps: tf.Tensor
) -> tuple[tf.Tensor, Active, tf.Tensor, tf.Tensor]:
    """Take one step with the active images; put those that are done before it into ``found``."""
    gradient, done = gradient_of(active.images, active.truth, step)
    if settings.early_stop:
        ready, open_ = tf.where(done), tf.where(~done)[:, 0]
        leaving = tf.gather_nd(active.rows, ready)[:, None]
        found = tf.tensor_scatter_nd_update(found, leaving, tf.gather_nd(active.images, ready))
        steps = tf.tensor_scatter_nd_update(steps, leaving, tf.fill(tf.shape(leaving)[:1], step))
        active, gradient = tf.nest.map_structure(lambda part: tf.gather(part, open_), (active, gradient))
    gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)  # what is not a number moves nothing
    direction, memory = gradient, active.memory
    if settings.momentum:
        # What cannot move has no say in the length of the gradient.
        gradient = tf.where(active.highest > active.lowest, gradient, 0.0)
        length = tf.reduce_sum(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
        direction = memory = settings.momentum * memory + tf.math.divide_no_nan(gradient, length)
    moved = tf.clip_by_value(active.images + settings.step * tf.sign(direction), active.lowest, active.highest)
    return step + 1, active._replace(images=moved, memory=memory), found, steps


def _noise(shape: tf.Tensor, seed: int, numbers: tf.Tensor) -> tf.Tensor:
    """Return noise of a shape (n, h, w, c), uniform in [−1, 1), that of an image a function of seed and its number."""

    def draw(number: tf.Tensor) -> tf.Tensor:
        key = tf.stack([tf.constant(seed, tf.int64), number])
        return tf.random.stateless_uniform(shape[1:], key, -1.0, 1.0, alg="philox")

    return tf.map_fn(draw, numbers, fn_output_signature=tf.float32)


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """Let TensorFlow rewrite the graphs called inside, so that convolutions and products take numbers of this kind."""
    if name == "float32":
        yield
        return
    option = "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: False})

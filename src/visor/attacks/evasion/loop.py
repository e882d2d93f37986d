"""What a search sees of a loss: its gradient with respect to images, over one draw of a transform or several."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.tf import tf

Loss = Callable[[tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor]]
Transform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
LossOutputs = dict[str, tf.Tensor]  # gradient (k, h, w, c); where wanted done (k,), and values (k,), which were raised
Gradient = Callable[[tf.Tensor, Any, tf.Tensor], LossOutputs]


def compile_gradient(loss: Loss, transform: Transform | None, outputs: set[str], samples: int) -> Gradient:
    """Return images (k, h, w, c), truth, number of the step → what is wanted of the loss.

    Of ``samples`` draws these are means, and done is what is so in all of them.
    """
    once = _single_draw(loss, transform, outputs)
    if samples == 1 or transform is None:
        return once

    def mean(images: tf.Tensor, truth: Any, step: tf.Tensor) -> LossOutputs:
        def add(draw: tf.Tensor, total: LossOutputs) -> tuple[tf.Tensor, LossOutputs]:
            seen = once(images, truth, step * samples + draw)
            return draw + 1, {name: _accumulate(total[name], part) for name, part in seen.items()}

        first = once(images, truth, step * samples)
        # One after the other: draws at once would take the memory of as many batches.
        _, total = tf.while_loop(lambda draw, _: draw < samples, add, (1, first), parallel_iterations=1)
        return {name: part if part.dtype == tf.bool else part / samples for name, part in total.items()}

    return mean


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Let TensorFlow rewrite the graphs called inside, so that convolutions and products take such numbers."""
    if name == "float32":
        yield
        return
    option = "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: False})


def _single_draw(loss: Loss, transform: Transform | None, outputs: set[str]) -> Gradient:
    """Return images (k, h, w, c), truth, number of the draw → what is wanted of the loss."""

    # Left a function of its own: inside a loop oneDNN overlooks some pooling layers, by chance; these cost a third.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def gradient(images: tf.Tensor, truth: Any, draw: tf.Tensor) -> LossOutputs:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            values, done = loss(images if transform is None else transform(images, draw), truth)
        seen = {"gradient": tape.gradient(values, images), "values": values, "done": done}
        return {name: seen[name] for name in sorted(outputs)}

    return gradient


def _accumulate(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return one & other if one.dtype == tf.bool else one + other


class AttackSettings(NamedTuple):
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


class AttackResult(NamedTuple):
    """Adversarial images float32 (n, h, w, c) in [0, 1], and the steps int32 (n,) that each of them took."""

    images: NDArray[np.float32]
    steps: NDArray[np.int32]


class ActiveBatch(NamedTuple):
    """The k images that are not done."""

    rows: tf.Tensor  # (k,) their places in the batch
    images: tf.Tensor  # (k, h, w, c)
    lower: tf.Tensor  # (k, h, w, c) where the ball and [0, 1] end
    upper: tf.Tensor
    state: Any  # a nest of (k, …): what a search remembers
    truth: Any  # a nest of (k, …)
    mask: tf.Tensor  # (k, h or 1, w or 1, 1) the masks


Attack = Callable[..., AttackResult]
AttackFactory = Callable[..., Attack]  # (loss, settings: PGD, transform: Transform | None = None)
InitStateFn = Callable[[tf.Tensor, tf.Tensor], Any]
UpdateFn = Callable[[ActiveBatch, LossOutputs, tf.Tensor], ActiveBatch]


def compile_attack(
    loss: Loss,
    settings: AttackSettings,
    transform: Transform | None,
    init_state: InitStateFn,
    update: UpdateFn,
    max_steps: int,
    needs_values: bool = False,
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
    wanted = (
        {"gradient"} | ({"values", "done"} if needs_values else set()) | ({"done"} if settings.early_stop else set())
    )
    gradient_of = compile_gradient(loss, transform, wanted, settings.samples)

    # Without loops in Python's words AutoGraph has nothing to do, and takes seconds to find that out.
    @tf.function(autograph=False)
    def search(images: tf.Tensor, truth: Any, image_ids: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        active = _start(settings, init_state, images, truth, image_ids, masks)
        state = (0, active, active.images, tf.fill(tf.shape(active.rows), settings.iterations))
        _, active, found, steps = tf.while_loop(
            lambda step, active, *_: (step < max_steps) & (tf.size(active.rows) > 0),
            lambda *state: _attack_step(gradient_of, update, settings.early_stop, *state),
            state,
        )
        return tf.tensor_scatter_nd_update(found, active.rows[:, None], active.images), steps

    return _numpy_interface(search, settings.precision)


def _start(
    settings: AttackSettings,
    init_state: InitStateFn,
    images: tf.Tensor,
    truth: Any,
    image_ids: tf.Tensor,
    masks: tf.Tensor,
) -> ActiveBatch:
    """Return all images of a batch at their start, clean or random."""
    clean = tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images
    share = tf.cast(masks, tf.float32)
    reach = settings.eps * share
    lowest, highest = tf.maximum(clean - reach, 0.0), tf.minimum(clean + reach, 1.0)
    start = clean
    if settings.random_start:
        start = tf.clip_by_value(clean + reach * _noise(tf.shape(clean), settings.seed, image_ids), lowest, highest)
    return ActiveBatch(tf.range(tf.shape(clean)[0]), start, lowest, highest, init_state(clean, start), truth, share)


def _attack_step(
    gradient_of: Gradient,
    update: UpdateFn,
    early_stop: bool,
    step: tf.Tensor,
    active: ActiveBatch,
    found: tf.Tensor,
    steps: tf.Tensor,
) -> tuple[tf.Tensor, ActiveBatch, tf.Tensor, tf.Tensor]:
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
    return step + 1, update(active, {**seen, "gradient": gradient}, step), found, steps


def _numpy_interface(search: Any, kind: str) -> Attack:
    """Return the attack, which takes and gives arrays; a last batch that is smaller is not traced anew."""

    def attack(images: Any, truth: Any, image_ids: Any, masks: Any = None) -> AttackResult:
        everywhere = np.ones((len(images), 1, 1, 1), np.float32)
        given = (images, truth, np.asarray(image_ids, np.int64), everywhere if masks is None else masks)
        arguments = tf.nest.map_structure(tf.convert_to_tensor, given)
        shapes = tf.nest.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), arguments)
        with precision(kind):
            found, steps = search.get_concrete_function(*shapes)(*arguments)
        return AttackResult(found.numpy(), steps.numpy())

    return attack


def _noise(shape: tf.Tensor, seed: int, image_ids: tf.Tensor) -> tf.Tensor:
    """Return noise of a shape (n, h, w, c), uniform in [−1, 1), an image's a function of seed and its number."""

    def draw(number: tf.Tensor) -> tf.Tensor:
        key = tf.stack([tf.constant(seed, tf.int64), number])
        return tf.random.stateless_uniform(shape[1:], key, -1.0, 1.0, alg="philox")

    return tf.map_fn(draw, image_ids, fn_output_signature=tf.float32)

"""The attack loop: one TensorFlow graph of gradient steps, for every loss and every update rule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.tf import tf

Loss = Callable[[tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor]]
Transform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
LossOutputs = dict[str, tf.Tensor]  # gradient (k, h, w, c); if requested success (k,) and values (k,)
GradientFn = Callable[[tf.Tensor, Any, tf.Tensor], LossOutputs]


class AttackSettings(NamedTuple):
    """Settings of every gradient attack.

    Attributes:
        eps: L∞ bound of the perturbation, for pixels in [0, 1].
        iterations: Maximum number of gradient steps.
        step: Size of a step, for pixels in [0, 1]; the learning rate of Adam. AutoPGD chooses its own.
        momentum: Decay of the gradients' running sum (MI-FGSM); 0: none.
        random_start: Whether to start from noise, uniform within the bound.
        early_stop: Whether images that succeed leave the batch.
        seed: Seed of the random start.
        samples: Draws of a random transform per step, whose mean gradient is followed (expectation over transformation,
            Athalye et al. 2018, arXiv 1707.07397). An image succeeds if it does in all of them.
    """

    eps: float
    iterations: int
    step: float
    momentum: float = 0.0
    random_start: bool = True
    early_stop: bool = False
    seed: int = 1
    samples: int = 1


class AttackResult(NamedTuple):
    """Adversarial images float32 (n, h, w, c) in [0, 1], and the number of steps int32 (n,) that each one took."""

    images: NDArray[np.float32]
    steps: NDArray[np.int32]


class ActiveBatch(NamedTuple):
    """The k images that are still attacked."""

    rows: tf.Tensor  # (k,) their rows in the batch
    images: tf.Tensor  # (k, h, w, c)
    lower: tf.Tensor  # (k, h, w, c) where the ball and [0, 1] end
    upper: tf.Tensor
    state: Any  # a nest of (k, …): the state of the update rule
    targets: Any  # a nest of (k, …)
    mask: tf.Tensor  # (k, h or 1, w or 1, 1)


Attack = Callable[..., AttackResult]
AttackFactory = Callable[..., Attack]  # (loss, settings: AttackSettings, transform: Transform | None = None)
InitStateFn = Callable[[tf.Tensor, tf.Tensor], Any]
UpdateFn = Callable[[ActiveBatch, LossOutputs, tf.Tensor], ActiveBatch]


def compile_gradient(loss: Loss, transform: Transform | None, outputs: set[str], samples: int) -> GradientFn:
    """Return a function of images (k, h, w, c), targets and step number → the ``outputs`` of the loss.

    Of several samples it returns the mean, and success where all samples succeed.
    """
    single = _single_draw(loss, transform, outputs)
    if samples == 1 or transform is None:
        return single

    def mean(images: tf.Tensor, targets: Any, step: tf.Tensor) -> LossOutputs:
        def add(draw: tf.Tensor, total: LossOutputs) -> tuple[tf.Tensor, LossOutputs]:
            sample = single(images, targets, step * samples + draw)
            return draw + 1, {name: _accumulate(total[name], part) for name, part in sample.items()}

        first = single(images, targets, step * samples)
        # One after the other: parallel draws would take the memory of as many batches.
        _, total = tf.while_loop(lambda draw, _: draw < samples, add, (1, first), parallel_iterations=1)
        return {name: part if part.dtype == tf.bool else part / samples for name, part in total.items()}

    return mean


def _single_draw(loss: Loss, transform: Transform | None, outputs: set[str]) -> GradientFn:
    """Return a function of images (k, h, w, c), targets and number of the draw → the ``outputs`` of the loss."""

    # Not inlined: inside a loop oneDNN sometimes overlooks pooling layers, which costs a third of the time.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def gradient(images: tf.Tensor, targets: Any, draw: tf.Tensor) -> LossOutputs:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            values, success = loss(images if transform is None else transform(images, draw), targets)
        slope = tape.gradient(values, images)
        if slope is None:
            raise UserError("the model gives no gradient; build it from differentiable operations of TensorFlow")
        results = {"gradient": slope, "values": values, "success": success}
        return {name: results[name] for name in sorted(outputs)}

    return gradient


def _accumulate(total: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    return total & part if total.dtype == tf.bool else total + part


def compile_attack(
    loss: Loss,
    settings: AttackSettings,
    transform: Transform | None,
    init_state: InitStateFn,
    update: UpdateFn,
    max_steps: int,
    needs_values: bool = False,
) -> Attack:
    """Compile a gradient attack into one TensorFlow graph, traced once for each shape of an image.

    Args:
        loss: ``loss(images, targets) -> (values, success)`` for float32 images (k, h, w, c) in [0, 1]. ``values`` (k,)
            is maximised; ``success`` (k,) is a bool. Each value may depend on its own image only.
        settings: Bound, steps and seed.
        transform: Random transform ``transform(images, draw) -> images`` in front of the loss; draws of a step are
            numbered step · samples … step · samples + samples − 1.
        init_state: ``init_state(clean, start) -> state`` of the update rule, per image.
        update: ``update(batch, outputs, step) -> batch``, one step of the attack.
        max_steps: Number of updates.
        needs_values: Whether ``update`` reads values and success and not only the gradient.

    Returns:
        ``attack(images, targets, image_ids, masks=None) -> AttackResult`` for images uint8 or float32 in [0, 1]
        (n, h, w, c) and targets, any nest of arrays (n, …). ``image_ids`` int (n,) fix the random start, so that
        results do not depend on the batch. Masks (n, h, w, 1) in [0, 1] scale bound and step of each pixel.
    """
    outputs = {"gradient", *(["values", "success"] if needs_values else ["success"] if settings.early_stop else [])}
    gradient_fn = compile_gradient(loss, transform, outputs, settings.samples)

    def attack_step(step: tf.Tensor, active: ActiveBatch, results: tf.Tensor, steps: tf.Tensor) -> tuple[Any, ...]:
        outputs = gradient_fn(active.images, active.targets, step)
        if settings.early_stop:
            finished, remaining = tf.where(outputs["success"]), tf.where(~outputs["success"])[:, 0]
            rows = tf.gather_nd(active.rows, finished)[:, None]
            results = tf.tensor_scatter_nd_update(results, rows, tf.gather_nd(active.images, finished))
            steps = tf.tensor_scatter_nd_update(steps, rows, tf.fill(tf.shape(rows)[:1], step))
            active, outputs = tf.nest.map_structure(lambda part: tf.gather(part, remaining), (active, outputs))
        gradient = tf.where(tf.math.is_finite(outputs["gradient"]), outputs["gradient"], 0.0)
        return step + 1, update(active, {**outputs, "gradient": gradient}, step), results, steps

    # Without Python loops AutoGraph has nothing to do, and takes seconds to find that out.
    @tf.function(autograph=False)
    def run(images: tf.Tensor, targets: Any, image_ids: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        clean = tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images
        mask = tf.cast(masks, tf.float32)
        bound = settings.eps * mask
        lower, upper = tf.maximum(clean - bound, 0.0), tf.minimum(clean + bound, 1.0)
        start = clean
        if settings.random_start:
            start = tf.clip_by_value(clean + bound * _noise(tf.shape(clean), settings.seed, image_ids), lower, upper)
        rows = tf.range(tf.shape(clean)[0])
        active = ActiveBatch(rows, start, lower, upper, init_state(clean, start), targets, mask)
        _, active, results, steps = tf.while_loop(
            lambda step, active, *_: (step < max_steps) & (tf.size(active.rows) > 0),
            attack_step,
            (0, active, active.images, tf.fill(tf.shape(active.rows), settings.iterations)),
        )
        return tf.tensor_scatter_nd_update(results, active.rows[:, None], active.images), steps

    return _numpy_interface(run)


def _numpy_interface(run: Any) -> Attack:
    """Return the attack on arrays; a smaller last batch is not traced anew."""

    def attack(images: Any, targets: Any, image_ids: Any, masks: Any = None) -> AttackResult:
        masks = np.ones((len(images), 1, 1, 1), np.float32) if masks is None else masks
        arguments = (images, targets, np.asarray(image_ids, np.int64), masks)
        arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        shapes = tf.nest.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), arguments)
        adversarial, steps = run.get_concrete_function(*shapes)(*arguments)
        return AttackResult(adversarial.numpy(), steps.numpy())

    return attack


def _noise(shape: tf.Tensor, seed: int, image_ids: tf.Tensor) -> tf.Tensor:
    """Return noise of a shape (n, h, w, c), uniform in [−1, 1), a function of seed and image id alone."""

    def draw(image_id: tf.Tensor) -> tf.Tensor:
        key = tf.stack([tf.constant(seed, tf.int64), image_id])
        return tf.random.stateless_uniform(shape[1:], key, -1.0, 1.0, alg="philox")

    return tf.map_fn(draw, image_ids, fn_output_signature=tf.float32)

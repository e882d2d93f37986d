"""What a search sees of a loss: its gradient with respect to images, over one draw of a transform or several."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

Loss = Callable[[tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor]]
Transform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Seen = dict[str, tf.Tensor]  # gradient (k, h, w, c); where wanted done (k,), and values (k,), which were raised
Gradient = Callable[[tf.Tensor, Any, tf.Tensor], Seen]


def compile_gradient(loss: Loss, transform: Transform | None, wanted: set[str], samples: int) -> Gradient:
    """Return images (k, h, w, c), truth, number of the step → what is wanted of the loss.

    Of ``samples`` draws these are means, and done is what is so in all of them.
    """
    once = _one_draw(loss, transform, wanted)
    if samples == 1 or transform is None:
        return once

    def mean(images: tf.Tensor, truth: Any, step: tf.Tensor) -> Seen:
        def add(draw: tf.Tensor, total: Seen) -> tuple[tf.Tensor, Seen]:
            seen = once(images, truth, step * samples + draw)
            return draw + 1, {name: _joined(total[name], part) for name, part in seen.items()}

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


def _one_draw(loss: Loss, transform: Transform | None, wanted: set[str]) -> Gradient:
    """Return images (k, h, w, c), truth, number of the draw → what is wanted of the loss."""

    # Left a function of its own: inside a loop oneDNN overlooks some pooling layers, by chance; these cost a third.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def gradient(images: tf.Tensor, truth: Any, draw: tf.Tensor) -> Seen:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            values, done = loss(images if transform is None else transform(images, draw), truth)
        seen = {"gradient": tape.gradient(values, images), "values": values, "done": done}
        return {name: seen[name] for name in sorted(wanted)}

    return gradient


def _joined(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return one & other if one.dtype == tf.bool else one + other

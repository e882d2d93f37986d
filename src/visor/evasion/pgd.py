"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083), for every model and objective.

In the L∞ ball of radius eps around an image x, cut by the range [0, 1] of pixels, it climbs the loss L:

    x ← clip(x + step · sign ∇L(x))        with momentum (Dong et al. 2018, arXiv 1710.06081):  sign(g),
                                            g ← momentum · g + ∇L / ‖∇L‖₁
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import tensorflow as tf

from visor.evasion.gradients import Loss, Seen, Transform
from visor.evasion.search import PGD, Active, Attack, Result, compile_search

__all__ = ["PGD", "Attack", "Loss", "Result", "Transform", "compile_pgd"]


def compile_pgd(loss: Loss, settings: PGD, transform: Transform | None = None) -> Attack:
    """Return the attack of ``compile_search`` by projected gradient descent."""

    def move(active: Active, seen: Seen, turn: tf.Tensor) -> Active:
        direction, memory = seen["gradient"], active.memory
        if settings.momentum:
            # What cannot move has no say in the length of the gradient.
            gradient = tf.where(active.highest > active.lowest, direction, 0.0)
            length = tf.reduce_sum(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
            direction = memory = settings.momentum * memory + tf.math.divide_no_nan(gradient, length)
        step = settings.step * active.share * tf.sign(direction)
        moved = tf.clip_by_value(active.images + step, active.lowest, active.highest)
        return active._replace(images=moved, memory=memory)

    return compile_search(
        loss, settings, transform, lambda clean, start: tf.zeros_like(clean), move, settings.iterations
    )

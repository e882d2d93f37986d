"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083), for every model and objective.

In the L∞ ball of radius eps around an image x, cut by the range [0, 1] of pixels, it climbs the loss L:

    x ← clip(x + step · sign ∇L(x))        with momentum (Dong et al. 2018, arXiv 1710.06081):  sign(g),
                                            g ← momentum · g + ∇L / ‖∇L‖₁
"""

from visor.attacks.evasion.loop import (
    ActiveBatch,
    Attack,
    AttackResult,
    AttackSettings,
    Loss,
    LossOutputs,
    Transform,
    compile_attack,
)
from visor.core.tf import tf

__all__ = ["Attack", "AttackResult", "AttackSettings", "Loss", "Transform", "compile_pgd"]


def compile_pgd(loss: Loss, settings: AttackSettings, transform: Transform | None = None) -> Attack:
    """Return the attack of ``compile_search`` by projected gradient descent."""

    def move(active: ActiveBatch, seen: LossOutputs, turn: tf.Tensor) -> ActiveBatch:
        direction, memory = seen["gradient"], active.state
        if settings.momentum:
            # What cannot move has no say in the length of the gradient.
            gradient = tf.where(active.upper > active.lower, direction, 0.0)
            length = tf.reduce_sum(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
            direction = memory = settings.momentum * memory + tf.math.divide_no_nan(gradient, length)
        step = settings.step * active.mask * tf.sign(direction)
        moved = tf.clip_by_value(active.images + step, active.lower, active.upper)
        return active._replace(images=moved, state=memory)

    return compile_attack(
        loss, settings, transform, lambda clean, start: tf.zeros_like(clean), move, settings.iterations
    )

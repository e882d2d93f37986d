"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083), for every model and loss.

In the L∞ ball of radius eps around an image x, cut by the range [0, 1] of pixels, it climbs the loss L:

    x ← clip(x + step · sign ∇L(x))        with momentum (Dong et al. 2018, arXiv 1710.06081):  sign(g),
                                            g ← momentum · g + ∇L / ‖∇L‖₁
"""

from visor.attacks.evasion.loop import ActiveBatch, Attack, AttackSettings, Loss, LossOutputs, Transform, compile_attack
from visor.core.tf import tf


def compile_pgd(loss: Loss, settings: AttackSettings, transform: Transform | None = None) -> Attack:
    """Return the attack of ``compile_attack`` by projected gradient descent."""

    def update(active: ActiveBatch, outputs: LossOutputs, step: tf.Tensor) -> ActiveBatch:
        direction, state = outputs["gradient"], active.state
        if settings.momentum:
            # The gradient of pixels that cannot move is left out of its norm.
            gradient = tf.where(active.upper > active.lower, direction, 0.0)
            norm = tf.reduce_sum(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
            direction = state = settings.momentum * state + tf.math.divide_no_nan(gradient, norm)
        change = settings.step * active.mask * tf.sign(direction)
        images = tf.clip_by_value(active.images + change, active.lower, active.upper)
        return active._replace(images=images, state=state)

    return compile_attack(loss, settings, transform, lambda clean, _: tf.zeros_like(clean), update, settings.iterations)

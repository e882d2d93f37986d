"""A perturbation that Adam optimises (Kingma and Ba 2015, arXiv 1412.6980), clipped to the bound after each step.

    δ ← clip(δ + step · m̂ / (√v̂ + 1e-7), ±eps),   x ← clip(x₀ + δ, 0, 1)

An optimised variable beside the image is the way of Carlini and Wagner 2017 (arXiv 1608.04644), and common in attacks
on VGGFace2 networks. PGD moves all values equally far; here those whose gradient is unsteady move less.
"""

from typing import NamedTuple

from visor.attacks.evasion.loop import ActiveBatch, Attack, AttackSettings, Loss, LossOutputs, Transform, compile_attack
from visor.core.tf import tf

BETA_1, BETA_2 = 0.9, 0.999  # decay of the mean gradient and of the mean square
EPSILON = 1e-7  # beside the root of the mean square; also the smallest gradient that still counts


class AdamState(NamedTuple):
    """State of each of the k images, all (k, h, w, c)."""

    clean: tf.Tensor
    perturbation: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor


def compile_adam(loss: Loss, settings: AttackSettings, transform: Transform | None = None) -> Attack:
    """Return the attack of ``compile_attack`` by Adam with learning rate ``settings.step`` and Adam's own momentum.

    The perturbation keeps what an image loses by clipping at black or white.
    """

    def init_state(clean: tf.Tensor, start: tf.Tensor) -> AdamState:
        return AdamState(clean, start - clean, tf.zeros_like(clean), tf.zeros_like(clean))

    def update(active: ActiveBatch, outputs: LossOutputs, step: tf.Tensor) -> ActiveBatch:
        state, gradient, time = active.state, outputs["gradient"], tf.cast(step + 1, tf.float32)
        mean = BETA_1 * state.mean + (1 - BETA_1) * gradient
        square = BETA_2 * state.square + (1 - BETA_2) * tf.square(gradient)
        change = mean / (1 - BETA_1**time) / (tf.sqrt(square / (1 - BETA_2**time)) + EPSILON)
        bound, moved = settings.eps * active.mask, state.perturbation + settings.step * active.mask * change
        perturbation = tf.clip_by_value(moved, -bound, bound)
        images = tf.clip_by_value(state.clean + perturbation, active.lower, active.upper)
        return active._replace(images=images, state=AdamState(state.clean, perturbation, mean, square))

    return compile_attack(loss, settings, transform, init_state, update, settings.iterations)

"""A perturbation that an optimiser moves: Adam (Kingma and Ba 2015, arXiv 1412.6980), and then it is clipped.

    δ ← clip(δ + step · m̂ / (√v̂ + 1e-7), ±eps),   x ← clip(x₀ + δ, 0, 1)

A variable beside the image, an optimiser and a clip: the way of Carlini and Wagner 2017 (arXiv 1608.04644), and in
practice that of attacks on VGGFace2 networks. PGD moves all values equally far; here those whose gradient is unsteady
move less.
"""

from typing import NamedTuple

from visor.attacks.evasion.loop import ActiveBatch, Attack, AttackSettings, Loss, LossOutputs, Transform, compile_attack
from visor.core.tf import tf

BETA_1, BETA_2 = 0.9, 0.999  # decay of the mean gradient and of the mean square
EPSILON = 1e-7  # beside the root of the mean square; it also is the least gradient that still counts


class AdamState(NamedTuple):
    """Of each of the k images, all (k, h, w, c)."""

    clean: tf.Tensor
    perturbation: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor


def compile_adam(loss: Loss, settings: AttackSettings, transform: Transform | None = None) -> Attack:
    """Return the attack of ``compile_search`` by Adam with the learning rate ``settings.step`` and its own momentum.

    What an image loses when it is clipped at black or white the perturbation keeps.
    """

    def remember(clean: tf.Tensor, start: tf.Tensor) -> AdamState:
        return AdamState(clean, start - clean, tf.zeros_like(clean), tf.zeros_like(clean))

    def move(active: ActiveBatch, seen: LossOutputs, step: tf.Tensor) -> ActiveBatch:
        memory, gradient, time = active.state, seen["gradient"], tf.cast(step + 1, tf.float32)
        mean = BETA_1 * memory.mean + (1 - BETA_1) * gradient
        square = BETA_2 * memory.square + (1 - BETA_2) * tf.square(gradient)
        change = mean / (1 - BETA_1**time) / (tf.sqrt(square / (1 - BETA_2**time)) + EPSILON)
        eps, moved = settings.eps * active.mask, memory.perturbation + settings.step * active.mask * change
        perturbation = tf.clip_by_value(moved, -eps, eps)
        images = tf.clip_by_value(memory.clean + perturbation, active.lower, active.upper)
        return active._replace(images=images, state=AdamState(memory.clean, perturbation, mean, square))

    return compile_attack(loss, settings, transform, remember, move, settings.iterations)

"""A perturbation that an optimiser moves: Adam (Kingma and Ba 2015, arXiv 1412.6980), and then it is clipped.

    δ ← clip(δ + step · m̂ / (√v̂ + 1e-7), ±eps),   x ← clip(x₀ + δ, 0, 1)

A variable beside the image, an optimiser and a clip: the way of Carlini and Wagner 2017 (arXiv 1608.04644), and in
practice that of attacks on VGGFace2 networks. PGD moves all values equally far; here those whose gradient is unsteady
move less.
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from typing import NamedTuple

import tensorflow as tf

from visor.evasion.gradients import Loss, Seen, Transform
from visor.evasion.search import PGD, Active, Attack, compile_search

FIRST, SECOND = 0.9, 0.999  # decay of the mean gradient and of the mean square
LEAST = 1e-7  # beside the root of the mean square; it also is the least gradient that still counts


class Memory(NamedTuple):
    """Of each of the k images, all (k, h, w, c)."""

    clean: tf.Tensor
    perturbation: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor


def compile_perturbation_vector(loss: Loss, settings: PGD, transform: Transform | None = None) -> Attack:
    """Return the attack of ``compile_search`` by Adam with the learning rate ``settings.step`` and its own momentum.

    What an image loses when it is clipped at black or white the perturbation keeps.
    """

    def remember(clean: tf.Tensor, start: tf.Tensor) -> Memory:
        return Memory(clean, start - clean, tf.zeros_like(clean), tf.zeros_like(clean))

    def move(active: Active, seen: Seen, step: tf.Tensor) -> Active:
        memory, gradient, time = active.memory, seen["gradient"], tf.cast(step + 1, tf.float32)
        mean = FIRST * memory.mean + (1 - FIRST) * gradient
        square = SECOND * memory.square + (1 - SECOND) * tf.square(gradient)
        change = mean / (1 - FIRST**time) / (tf.sqrt(square / (1 - SECOND**time)) + LEAST)
        eps, moved = settings.eps * active.share, memory.perturbation + settings.step * active.share * change
        perturbation = tf.clip_by_value(moved, -eps, eps)
        images = tf.clip_by_value(memory.clean + perturbation, active.lowest, active.highest)
        return active._replace(images=images, memory=Memory(memory.clean, perturbation, mean, square))

    return compile_search(loss, settings, transform, remember, move, settings.iterations)

"""AutoPGD (Croce and Hein 2020, arXiv 2003.01690, Algorithm 1): momentum, and steps that shorten by themselves.

    z ← clip(x + η · sign ∇L(x)),   x′ ← clip(x + α (z − x) + (1 − α) (x − x₋))

η begins at 2 · eps. At checkpoints an image whose loss rose too rarely, or whose best loss stayed what it was, has
its η halved and goes back to its best point. With cross-entropy, goal misclassify, it is APGD-CE.
"""

from typing import NamedTuple

import numpy as np

from visor.attacks.evasion.loop import ActiveBatch, Attack, AttackSettings, Loss, LossOutputs, Transform, compile_attack
from visor.core.tf import tf

ALPHA = 0.75  # share of the new step; the rest is the step before
RHO = 0.75  # of the steps between two checkpoints have to raise the loss
FIRST, SHORTER, SHORTEST = 22, 3, 6  # hundredths of the iterations: the first span, how much shorter each, the least


class AutoPgdState(NamedTuple):
    """Of each of the k images."""

    previous: tf.Tensor  # (k, h, w, c) the point before
    value: tf.Tensor  # (k,) the loss there
    best: tf.Tensor  # (k, h, w, c) where the loss was highest, its gradient and value there
    gradient: tf.Tensor
    highest: tf.Tensor  # (k,)
    kept: tf.Tensor  # (k, h, w, c) the result: where the image was done, and of these points the highest
    kept_value: tf.Tensor  # (k,)
    done: tf.Tensor  # (k,)
    step: tf.Tensor  # (k,) η
    rises: tf.Tensor  # (k,) since the last checkpoint
    was_halved: tf.Tensor  # (k,) at the last checkpoint
    before: tf.Tensor  # (k,) the highest value up to it


def compile_autopgd(loss: Loss, settings: AttackSettings, transform: Transform | None = None) -> Attack:
    """Return the attack of ``compile_search`` by AutoPGD, which chooses steps and momentum by itself.

    It returns the best point that it saw, the last one included: the loss is evaluated once more than it moves.
    """
    spans = np.zeros(settings.iterations + 1, np.float32)
    due = np.zeros(settings.iterations + 1, bool)
    points = checkpoints(settings.iterations)
    due[points], spans[points[1:]] = True, np.diff(points)

    def init_state(clean: tf.Tensor, start: tf.Tensor) -> AutoPgdState:
        number = tf.zeros_like(clean[:, 0, 0, 0])
        low, no = number - np.inf, tf.zeros_like(number, tf.bool)
        eta = number + 2 * settings.eps
        return AutoPgdState(start, -low, start, tf.zeros_like(start), low, start, low, no, eta, number, no, low)

    def update(active: ActiveBatch, seen: LossOutputs, step: tf.Tensor) -> ActiveBatch:
        memory = _record(active.state, active.images, seen)
        at_checkpoint = tf.gather(due, step)
        rare = memory.rises < RHO * tf.gather(spans, step)
        back = at_checkpoint & (rare | (~memory.was_halved & (memory.highest <= memory.before)))
        images = _select(back, memory.best, active.images)
        gradient = _select(back, memory.gradient, seen["gradient"])
        eta = tf.where(back, memory.step / 2, memory.step)
        ahead = images + eta[:, None, None, None] * active.mask * tf.sign(gradient)
        ahead = tf.clip_by_value(ahead, active.lower, active.upper)
        alpha = tf.where(step == 0, 1.0, ALPHA)
        moved = images + alpha * (ahead - images) + (1 - alpha) * (images - memory.previous)
        moved = tf.clip_by_value(moved, active.lower, active.upper)
        memory = memory._replace(
            previous=images,
            value=tf.where(back, memory.highest, seen["values"]),
            step=eta,
            rises=tf.where(at_checkpoint, 0.0, memory.rises),
            was_halved=tf.where(at_checkpoint, back, memory.was_halved),
            before=tf.where(at_checkpoint, memory.highest, memory.before),
        )
        return active._replace(images=tf.where(step < settings.iterations, moved, memory.kept), state=memory)

    return compile_attack(loss, settings, transform, init_state, update, settings.iterations + 1, needs_values=True)


def checkpoints(iterations: int) -> list[int]:
    """Return w₀ = 0 < w₁ < …, ⌈p · iterations⌉ with p ← p + max(p − p₋ − 0.03, 0.06) up to 1."""
    shares, span = [0], FIRST
    while shares[-1] + span <= 100:
        shares.append(shares[-1] + span)
        span = max(span - SHORTER, SHORTEST)
    return sorted({-(-share * iterations // 100) for share in shares})


def _record(memory: AutoPgdState, images: tf.Tensor, seen: LossOutputs) -> AutoPgdState:
    """Return what is remembered once the loss at a point is known."""
    values, done = seen["values"], seen["done"]
    better = values > memory.highest
    keep = (done & ~memory.done) | ((done == memory.done) & (values > memory.kept_value))
    return memory._replace(
        best=_select(better, images, memory.best),
        gradient=_select(better, seen["gradient"], memory.gradient),
        highest=tf.where(better, values, memory.highest),
        kept=_select(keep, images, memory.kept),
        kept_value=tf.where(keep, values, memory.kept_value),
        done=memory.done | done,
        rises=memory.rises + tf.cast(values > memory.value, tf.float32),
    )


def _select(which: tf.Tensor, ones: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Return images (k, h, w, c) of ``ones`` where ``which`` (k,) says so, else of the others."""
    return tf.where(which[:, None, None, None], ones, others)

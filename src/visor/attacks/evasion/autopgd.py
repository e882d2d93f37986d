"""AutoPGD (Croce and Hein 2020, arXiv 2003.01690, Algorithm 1): momentum, and step sizes that halve by themselves.

    z ← clip(x + η · sign ∇L(x)),   x′ ← clip(x + α (z − x) + (1 − α) (x − x₋))

η begins at 2 · eps. At checkpoints an image whose loss rose too rarely, or whose best loss stayed the same, has its η
halved and returns to its best point. With cross-entropy, the loss ``misclassify``, it is APGD-CE.
"""

from typing import NamedTuple

import numpy as np

from visor.attacks.evasion.loop import ActiveBatch, Attack, AttackSettings, Loss, LossOutputs, Transform, compile_attack
from visor.core.tf import tf

ALPHA = 0.75  # share of the new step; the rest is the step before
RHO = 0.75  # share of the steps between two checkpoints that has to raise the loss
FIRST, SHORTER, SHORTEST = 22, 3, 6  # percent of the iterations: the first span, its decrease, the shortest span


class AutoPgdState(NamedTuple):
    """State of each of the k images."""

    previous: tf.Tensor  # (k, h, w, c) the point before
    value: tf.Tensor  # (k,) the loss there
    best: tf.Tensor  # (k, h, w, c) where the loss was highest, with gradient and value there
    gradient: tf.Tensor
    highest: tf.Tensor  # (k,)
    kept: tf.Tensor  # (k, h, w, c) the result: of the points with success, else of all, the one of the highest loss
    kept_value: tf.Tensor  # (k,)
    success: tf.Tensor  # (k,)
    step: tf.Tensor  # (k,) η
    rises: tf.Tensor  # (k,) since the last checkpoint
    was_halved: tf.Tensor  # (k,) at the last checkpoint
    before: tf.Tensor  # (k,) the highest value up to it


def compile_autopgd(loss: Loss, settings: AttackSettings, transform: Transform | None = None) -> Attack:
    """Return the attack of ``compile_attack`` by AutoPGD, which chooses step sizes and momentum by itself.

    It returns the best point of all, the last one included, so the loss is evaluated once more than images move.
    """
    spans = np.zeros(settings.iterations + 1, np.float32)
    is_checkpoint = np.zeros(settings.iterations + 1, bool)
    points = checkpoints(settings.iterations)
    is_checkpoint[points], spans[points[1:]] = True, np.diff(points)

    def init_state(clean: tf.Tensor, start: tf.Tensor) -> AutoPgdState:
        zero = tf.zeros_like(clean[:, 0, 0, 0])
        low, no = zero - np.inf, tf.zeros_like(zero, tf.bool)
        eta = zero + 2 * settings.eps
        return AutoPgdState(start, -low, start, tf.zeros_like(start), low, start, low, no, eta, zero, no, low)

    def update(active: ActiveBatch, outputs: LossOutputs, step: tf.Tensor) -> ActiveBatch:
        state = _record(active.state, active.images, outputs)
        at_checkpoint = tf.gather(is_checkpoint, step)
        rare = state.rises < RHO * tf.gather(spans, step)
        back = at_checkpoint & (rare | (~state.was_halved & (state.highest <= state.before)))
        images = _select(back, state.best, active.images)
        gradient = _select(back, state.gradient, outputs["gradient"])
        eta = tf.where(back, state.step / 2, state.step)
        ahead = images + eta[:, None, None, None] * active.mask * tf.sign(gradient)
        ahead = tf.clip_by_value(ahead, active.lower, active.upper)
        alpha = tf.where(step == 0, 1.0, ALPHA)
        moved = images + alpha * (ahead - images) + (1 - alpha) * (images - state.previous)
        moved = tf.clip_by_value(moved, active.lower, active.upper)
        state = state._replace(
            previous=images,
            value=tf.where(back, state.highest, outputs["values"]),
            step=eta,
            rises=tf.where(at_checkpoint, 0.0, state.rises),
            was_halved=tf.where(at_checkpoint, back, state.was_halved),
            before=tf.where(at_checkpoint, state.highest, state.before),
        )
        return active._replace(images=tf.where(step < settings.iterations, moved, state.kept), state=state)

    return compile_attack(loss, settings, transform, init_state, update, settings.iterations + 1, needs_values=True)


def checkpoints(iterations: int) -> list[int]:
    """Return w₀ = 0 < w₁ < …, ⌈p · iterations⌉ with p ← p + max(p − p₋ − 0.03, 0.06) up to 1."""
    shares, span = [0], FIRST
    while shares[-1] + span <= 100:
        shares.append(shares[-1] + span)
        span = max(span - SHORTER, SHORTEST)
    return sorted({-(-share * iterations // 100) for share in shares})


def _record(state: AutoPgdState, images: tf.Tensor, outputs: LossOutputs) -> AutoPgdState:
    """Return the state once the loss at ``images`` is known."""
    values, success = outputs["values"], outputs["success"]
    better = values > state.highest
    keep = (success & ~state.success) | ((success == state.success) & (values > state.kept_value))
    return state._replace(
        best=_select(better, images, state.best),
        gradient=_select(better, outputs["gradient"], state.gradient),
        highest=tf.where(better, values, state.highest),
        kept=_select(keep, images, state.kept),
        kept_value=tf.where(keep, values, state.kept_value),
        success=state.success | success,
        rises=state.rises + tf.cast(values > state.value, tf.float32),
    )


def _select(condition: tf.Tensor, images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Return ``images`` (k, h, w, c) where ``condition`` (k,) holds, else ``others``."""
    return tf.where(condition[:, None, None, None], images, others)

"""Neural Cleanse (Wang et al., IEEE S&P 2019): the label that a small patch reaches is the target of a backdoor.

For every label a mask and a pattern are optimised that turn all clean images into it, all labels in one batch. A label
whose mask is far smaller than those of the others is an outlier.

The paper takes thousands of steps on large batches; here some eighty steps on a few images suffice, as the search
starts from a half-grey veil instead of noise and changes the weight of the norm in every step. Its running success
includes earlier, larger masks; that of the final trigger is measured anew, and a failed one counts as the whole frame.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.params import NeuralCleanseParams
from visor.core.tf import keras, tf
from visor.core.types import Floats, SeedStream
from visor.data.face_set import FaceSelection, evenly_spaced
from visor.models.inference import scale_pixels

FIRST_COST = 2e-3
RAISE, LOWER = 1.2, 1.2**1.5  # of the cost per step; the paper's code has 1.5 and 1.5**1.5 after five steps in a row
SUCCESS_DECAY = 0.8  # of the running success
BETAS, EPSILON = (0.5, 0.9), 1e-7  # Adam's, as in the paper's code
MAX_IMAGES = 100  # clean images on which the success of a final trigger is measured
SUCCESS_TOLERANCE = 0.15  # by which it may be below the success that the search aims at
OUTLIER = 2.0  # anomaly index above which a label is taken for a backdoor's target
CONSISTENCY = 1.4826  # standard deviation of a normal law in units of its median absolute deviation


class ReversedTriggers(NamedTuple):
    """Triggers that turn clean images into each of n labels.

    Attributes:
        masks, patterns: (n, h, w, 1) and (n, h, w, 3), both in [0, 1].
        norms: L1 norms (n,) of the masks in pixels; h·w where the success is too small.
        success: Share (n,) of clean images that become the label.
    """

    masks: Floats
    patterns: Floats
    norms: NDArray[np.float64]
    success: NDArray[np.float64]


class SearchState(NamedTuple):
    """State of the search for n labels."""

    raw: tf.Tensor  # (n, h, w, 4) mask and pattern before tanh
    first: tf.Tensor  # Adam's moments, shaped like raw
    second: tf.Tensor
    cost: tf.Tensor  # (n,) weight of the norm, λ in the paper
    success: tf.Tensor  # (n,) running share of images that reach the label
    best: tf.Tensor  # (n, h, w, 4) the smallest successful mask, with its pattern
    norm: tf.Tensor  # (n,) its norm, infinite without one


def reverse_triggers(
    model: keras.Model, clean: FaceSelection, labels: NDArray[np.integer[Any]], settings: NeuralCleanseParams, seed: int
) -> ReversedTriggers:
    """Return the smallest trigger found for each of ``labels`` (n,); where none succeeded, the last one tried.

    Success is measured on up to ``MAX_IMAGES`` evenly spaced clean images, whatever their labels; it is too small below
    ``settings.success`` − ``SUCCESS_TOLERANCE``.
    """
    rng = np.random.default_rng([seed, SeedStream.NEURAL_CLEANSE])
    order = np.concatenate([rng.permutation(clean.rows)[: settings.batch] for _ in range(settings.steps)])
    images = clean.faces.read(order).reshape(settings.steps, -1, *clean.faces.image_shape)
    search = _compile(model, settings)
    chunks = np.split(labels, range(settings.labels_at_once, len(labels), settings.labels_at_once))
    triggers = np.concatenate([search(images, chunk).numpy() for chunk in chunks])
    sample = clean.faces.read(clean.rows[evenly_spaced(MAX_IMAGES, len(clean.rows))])
    success = _compile_success(model)(sample, triggers, labels).numpy().astype(np.float64)
    norms = triggers[..., 0].sum(axis=(1, 2), dtype=np.float64)
    norms[success < settings.success - SUCCESS_TOLERANCE] = triggers[0, ..., 0].size
    return ReversedTriggers(triggers[..., :1], triggers[..., 1:], norms, success)


def anomaly_index(norms: Floats) -> NDArray[np.float64]:
    """Return by how many deviations each norm (n,) lies below the median; above 2 is an outlier (section IV-C).

    The deviation is estimated from the median absolute one. Where that is zero, because more than half of the norms are
    equal as those of unsuccessful labels are, all indices are zero.
    """
    distance = np.median(norms) - norms
    deviation = CONSISTENCY * np.median(np.abs(distance))
    return distance / deviation if deviation > 0 else np.zeros(len(norms))


def target_statistics(
    trigger: ReversedTriggers, labels: NDArray[np.integer[Any]], target: int | None
) -> dict[str, float]:
    """Return statistics of the norms of the triggers of ``labels`` (n,) and of the target, rank 1 the least.

    ``anomaly_index`` is the paper's, and ``outliers`` counts labels above 2. ``log_anomaly_index``, Visor's, is that of
    the norms' logarithms, as norms differ by factors. ``largest_`` values are of all labels but the target;
    ``unsuccessful`` counts failed triggers; ``success`` is the target's.
    """
    norms, is_other = trigger.norms, labels != target
    index, log_index = anomaly_index(norms), anomaly_index(np.log(norms))
    metrics = {
        "median_norm": float(np.median(norms)),
        "largest_anomaly_index": float(index[is_other].max()),
        "largest_log_anomaly_index": float(log_index[is_other].max()),
        "outliers": int((index > OUTLIER).sum()),
        "unsuccessful": int((norms == trigger.masks[0].size).sum()),
        "labels": len(norms),
    }
    if target is None:
        return metrics
    row = int(np.flatnonzero(~is_other)[0])
    return metrics | {
        "rank": 1 + int((norms < norms[row]).sum()),
        "norm": float(norms[row]),
        "success": float(trigger.success[row]),
        "anomaly_index": float(index[row]),
        "log_anomaly_index": float(log_index[row]),
    }


def _compile_success(model: keras.Model) -> Callable[..., tf.Tensor]:
    """Return images uint8 (b, h, w, 3), triggers (n, h, w, 4), labels (n,) → success (n,)."""
    height, width, _ = model.input_shape[1:]
    shapes = (((None, height, width, 3), tf.uint8), ((None, height, width, 4), tf.float32), ((None,), tf.int32))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, kind) for shape, kind in shapes])
    def success(images: tf.Tensor, triggers: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        def share(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            logits = model(_apply_triggers(pair[0][None], scale_pixels(images)), training=False)
            return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, -1, tf.int32), pair[1]), tf.float32))

        return tf.map_fn(share, (triggers, labels), fn_output_signature=tf.float32)

    return success


def _compile(model: keras.Model, settings: NeuralCleanseParams) -> Callable[..., tf.Tensor]:
    """Return batches uint8 (steps, b, h, w, 3), labels (n,) → masks and patterns (n, h, w, 4)."""
    height, width, _ = model.input_shape[1:]
    signature = [tf.TensorSpec((None, None, height, width, 3), tf.uint8), tf.TensorSpec((None,), tf.int32)]

    @tf.function(input_signature=signature)
    def search(batches: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        zeros, zero = tf.zeros((len(labels), height, width, 4)), tf.zeros_like(labels, tf.float32)
        state = SearchState(zeros, zeros, zeros, zero + FIRST_COST, zero, zeros, zero + np.inf)
        for step in tf.range(len(batches)):
            state = _step(model, scale_pixels(batches[step]), labels, state, tf.cast(step + 1, tf.float32), settings)
        return tf.where(_wide(state.norm < np.inf), state.best, _squash(state.raw))

    return search


def _step(
    model: keras.Model,
    images: tf.Tensor,
    labels: tf.Tensor,
    state: SearchState,
    step: tf.Tensor,
    settings: NeuralCleanseParams,
) -> SearchState:
    """Return the state after one step of Adam on images float32 (b, h, w, 3), for all labels (n,) at once."""
    targets, shape = tf.repeat(labels, len(images)), (len(labels), len(images))
    with tf.GradientTape() as tape:
        tape.watch(state.raw)
        trigger = _squash(state.raw)
        logits = model(_apply_triggers(trigger, images), training=False)
        errors = tf.reshape(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits), shape)
        norm = tf.reduce_sum(trigger[..., 0], axis=[1, 2])
        loss = tf.reduce_mean(errors, axis=1) + state.cost * norm
    gradient = tape.gradient(loss, state.raw)
    hits = tf.reshape(tf.cast(tf.equal(tf.argmax(logits, -1, tf.int32), targets), tf.float32), shape)
    success = SUCCESS_DECAY * state.success + (1 - SUCCESS_DECAY) * tf.reduce_mean(hits, axis=1)
    enough = success >= settings.success
    better = enough & (norm < state.norm)
    first = BETAS[0] * state.first + (1 - BETAS[0]) * gradient
    second = BETAS[1] * state.second + (1 - BETAS[1]) * gradient**2
    rate = settings.learning_rate * tf.sqrt(1 - BETAS[1] ** step) / (1 - BETAS[0] ** step)
    return SearchState(
        raw=state.raw - rate * first / (tf.sqrt(second) + EPSILON),
        first=first,
        second=second,
        cost=state.cost * tf.where(enough, RAISE, 1 / LOWER),
        success=success,
        best=tf.where(_wide(better), trigger, state.best),
        norm=tf.where(better, norm, state.norm),
    )


def _squash(raw: tf.Tensor) -> tf.Tensor:
    return tf.tanh(raw) / 2 + 0.5


def _apply_triggers(trigger: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Apply each trigger (n, h, w, 4) to each image (b, h, w, 3): (n·b, h, w, 3), all images of a trigger in a row."""
    mask, pattern = trigger[:, None, ..., :1], trigger[:, None, ..., 1:]
    return tf.reshape(mask * pattern + (1 - mask) * images, (-1, *images.shape[1:]))


def _wide(flags: tf.Tensor) -> tf.Tensor:
    """(n,) → (n, 1, 1, 1)."""
    return flags[:, None, None, None]

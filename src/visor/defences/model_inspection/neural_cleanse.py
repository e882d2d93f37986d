"""Neural Cleanse (Wang et al., IEEE S&P 2019): the label that a small patch reaches is the target of a backdoor.

For every label a mask and a pattern are optimised that turn all clean images into it; all labels are one batch
of one compiled loop. A label whose mask is far smaller than those of the others is an outlier.

The paper searches for thousands of steps on large batches; here some eighty steps on a few images have to do. So
the search starts from a half-grey veil instead of noise, and the weight of the norm changes a little in every step.
What the search takes for success is a running mean that also knows earlier, larger masks. Whether a final trigger
works is therefore measured anew, and one that does not is as good as painting over the whole frame.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.params import NeuralCleanseParams
from visor.core.tf import keras, tf
from visor.core.types import Floats, SeedStream
from visor.data.face_set import FaceSelection
from visor.models.inference import scale_pixels

FIRST_COST = 2e-3
RAISE, LOWER = 1.2, 1.2**1.5  # of the cost in a step; the paper's code has 1.5 and 1.5**1.5 after five steps in a row
SUCCESS_DECAY = 0.8  # of the running success
BETAS, EPSILON = (0.5, 0.9), 1e-7  # Adam's, as in the paper's code
MEASURED = 100  # clean images, at most, that every final trigger is put on
SUCCESS_TOLERANCE = 0.15  # by which its success may stay behind the share that the search aims at
OUTLIER = 2.0  # an anomaly index above it tells of a backdoor
CONSISTENCY = 1.4826  # standard deviation of a normal law in units of its median absolute deviation


class ReversedTriggers(NamedTuple):
    """What turns clean images into each label: masks (n, h, w, 1) and patterns (n, h, w, 3), both in [0, 1].

    ``success`` (n,) is the share of clean images that do become the label; ``norms`` (n,) are L1 norms of the masks
    in pixels, and h·w where the success is too small.
    """

    masks: Floats
    patterns: Floats
    norms: NDArray[np.float64]
    success: NDArray[np.float64]


class SearchState(NamedTuple):
    """The search for n labels after some steps."""

    raw: tf.Tensor  # (n, h, w, 4) of which tanh makes mask and pattern
    first: tf.Tensor  # Adam's moments, of the shape of raw
    second: tf.Tensor
    cost: tf.Tensor  # (n,) weight of the norm, λ in the paper
    success: tf.Tensor  # (n,) running share of images that reach the label
    best: tf.Tensor  # (n, h, w, 4) the smallest mask that succeeded, with its pattern
    norm: tf.Tensor  # (n,) its norm, infinite as long as none did


def reverse_triggers(
    model: keras.Model, clean: FaceSelection, labels: NDArray[np.integer[Any]], settings: NeuralCleanseParams, seed: int
) -> ReversedTriggers:
    """Return the smallest trigger found for each of ``labels`` (n,); where none succeeded, the last one tried.

    model: float32 images in [0, 1] → logits; clean: images that the search draws from, whatever their labels. Success
    is measured on up to ``MEASURED`` of them, evenly spread; less than ``settings.success`` − ``SLACK`` is too little.
    """
    rng = np.random.default_rng([seed, SeedStream.NEURAL_CLEANSE])
    order = np.concatenate([rng.permutation(clean.rows)[: settings.batch] for _ in range(settings.steps)])
    images = clean.faces.read(order).reshape(settings.steps, -1, *clean.faces.image_shape)
    search = _compile(model, settings)
    chunks = np.split(labels, range(settings.labels_at_once, len(labels), settings.labels_at_once))
    found = np.concatenate([search(images, chunk).numpy() for chunk in chunks])
    places = np.unique(np.linspace(0, len(clean.rows) - 1, MEASURED).astype(int))
    success = _compile_success(model)(clean.faces.read(clean.rows[places]), found, labels).numpy().astype(np.float64)
    norms = found[..., 0].sum(axis=(1, 2), dtype=np.float64)
    norms[success < settings.success - SUCCESS_TOLERANCE] = found[0, ..., 0].size
    return ReversedTriggers(found[..., :1], found[..., 1:], norms, success)


def anomaly_index(norms: Floats) -> NDArray[np.float64]:
    """Return by how many deviations each norm (n,) lies below the median; above 2 is an outlier (section IV-C).

    The deviation is estimated by the median absolute one, as if norms followed a normal law. It is zero where more
    than half of the norms are alike, as those of unsuccessful labels are: nothing can be said then, and all are zero.
    """
    distance = np.median(norms) - norms
    deviation = CONSISTENCY * np.median(np.abs(distance))
    return distance / deviation if deviation > 0 else np.zeros(len(norms))


def target_statistics(
    trigger: ReversedTriggers, labels: NDArray[np.integer[Any]], target: int | None
) -> dict[str, float]:
    """Return where the target stands among the norms of the triggers of ``labels`` (n,): rank 1 is the least.

    ``anomaly_index`` is the paper's, and ``outliers`` counts labels that have one above two. ``log_anomaly_index`` is
    ours: that of the norms' logarithms, which lie within a factor, not a distance, of one another. ``largest_``
    values are of all labels but the target; ``unsuccessful`` counts triggers that do not work, ``success`` is the
    target's.
    """
    norms, others = trigger.norms, labels != target
    index, log_index = anomaly_index(norms), anomaly_index(np.log(norms))
    numbers = {
        "median_norm": float(np.median(norms)),
        "largest_anomaly_index": float(index[others].max()),
        "largest_log_anomaly_index": float(log_index[others].max()),
        "outliers": int((index > OUTLIER).sum()),
        "unsuccessful": int((norms == trigger.masks[0].size).sum()),
        "labels": len(norms),
    }
    if target is None:
        return numbers
    place = int(np.flatnonzero(~others)[0])
    return {
        **numbers,
        "rank": 1 + int((norms < norms[place]).sum()),
        "norm": float(norms[place]),
        "success": float(trigger.success[place]),
        "anomaly_index": float(index[place]),
        "log_anomaly_index": float(log_index[place]),
    }


def _compile_success(model: keras.Model) -> Callable[..., tf.Tensor]:
    """Return images uint8 (b, h, w, 3), triggers (n, h, w, 4), labels (n,) → share (n,) of images that become it."""
    height, width, _ = model.input_shape[1:]
    shapes = (((None, height, width, 3), tf.uint8), ((None, height, width, 4), tf.float32), ((None,), tf.int32))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, kind) for shape, kind in shapes])
    def success(images: tf.Tensor, triggers: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        def share(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            logits = model(_painted(pair[0][None], scale_pixels(images)), training=False)
            return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, -1, tf.int32), pair[1]), tf.float32))

        return tf.map_fn(share, (triggers, labels), fn_output_signature=tf.float32)

    return success


def _compile(model: keras.Model, settings: NeuralCleanseParams) -> Callable[..., tf.Tensor]:
    """Return batches uint8 (steps, b, h, w, 3), labels (n,) → masks and patterns (n, h, w, 4)."""
    height, width, _ = model.input_shape[1:]
    signature = [tf.TensorSpec((None, None, height, width, 3), tf.uint8), tf.TensorSpec((None,), tf.int32)]

    @tf.function(input_signature=signature)
    def search(batches: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        none, number = tf.zeros((len(labels), height, width, 4)), tf.zeros_like(labels, tf.float32)
        state = SearchState(none, none, none, number + FIRST_COST, number, none, number + np.inf)
        for step in tf.range(len(batches)):
            state = _step(model, scale_pixels(batches[step]), labels, state, tf.cast(step + 1, tf.float32), settings)
        return tf.where(_wide(state.norm < np.inf), state.best, _bounded(state.raw))

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
    wanted, shape = tf.repeat(labels, len(images)), (len(labels), len(images))
    with tf.GradientTape() as tape:
        tape.watch(state.raw)
        trigger = _bounded(state.raw)
        logits = model(_painted(trigger, images), training=False)
        errors = tf.reshape(tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, logits), shape)
        norm = tf.reduce_sum(trigger[..., 0], axis=[1, 2])
        loss = tf.reduce_mean(errors, axis=1) + state.cost * norm
    gradient = tape.gradient(loss, state.raw)
    hits = tf.reshape(tf.cast(tf.equal(tf.argmax(logits, -1, tf.int32), wanted), tf.float32), shape)
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


def _bounded(raw: tf.Tensor) -> tf.Tensor:
    return tf.tanh(raw) / 2 + 0.5


def _painted(trigger: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Put each trigger (n, h, w, 4) on each image (b, h, w, 3): (n·b, h, w, 3), all images of a trigger in a row."""
    mask, pattern = trigger[:, None, ..., :1], trigger[:, None, ..., 1:]
    return tf.reshape(mask * pattern + (1 - mask) * images, (-1, *images.shape[1:]))


def _wide(flags: tf.Tensor) -> tf.Tensor:
    """(n,) → (n, 1, 1, 1)."""
    return flags[:, None, None, None]

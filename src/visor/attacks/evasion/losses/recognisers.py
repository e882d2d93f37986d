"""Losses of attacks on recognisers and classifiers.

A loss is built from the network, images float32 (n, h, w, 3) in [0, 1] → unit embeddings (n, d) or logits (n, classes),
and a threshold. ``loss(images, targets)`` with targets that are unit embeddings (n, d) or labels int32 (n,) returns
values (n,) to be maximised and success, bool (n,): past the threshold by ``MARGIN``, so that 8-bit rounding keeps it.
"""

from collections.abc import Callable

import numpy as np

from visor.attacks.evasion.loop import Loss
from visor.core.tf import tf

ModelOutput = Callable[[tf.Tensor], tf.Tensor]
LossFactory = Callable[..., Loss]  # (output, threshold: float = …)

MARGIN = 0.02


def impersonate(output: ModelOutput, threshold: float = np.inf) -> Loss:
    """Raise the cosine similarity to the target's embedding; success above the threshold, by default never."""

    def loss(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        similarity = tf.reduce_sum(output(images) * targets, axis=-1)
        return similarity, similarity > threshold + MARGIN

    return loss


def dodge(output: ModelOutput, threshold: float = -np.inf) -> Loss:
    """Lower the cosine similarity to the person's embedding; success below the threshold, by default never.

    The gradient vanishes at the embedding itself: a face that is its own target needs a random start.
    """

    def loss(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        similarity = tf.reduce_sum(output(images) * targets, axis=-1)
        return -similarity, similarity < threshold - MARGIN

    return loss


def misclassify(output: ModelOutput, threshold: float = 0.0) -> Loss:
    """Raise the cross-entropy of the true label; success if another logit leads by more than the threshold."""

    def loss(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = output(images)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return entropy, -_logit_margin(logits, labels) > threshold + MARGIN

    return loss


def target_class(output: ModelOutput, threshold: float = 0.0) -> Loss:
    """Lower the cross-entropy of the target's label; success if its logit leads by more than the threshold."""

    def loss(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = output(images)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return -entropy, _logit_margin(logits, labels) > threshold + MARGIN

    return loss


RECOGNISER_LOSSES: dict[str, LossFactory] = {
    "impersonate": impersonate,
    "dodge": dodge,
    "misclassify": misclassify,
    "target_class": target_class,
}


def _logit_margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return by how much the logit of a label exceeds all others (n,), negative where it does not."""
    is_label = tf.one_hot(labels, tf.shape(logits)[1], True, False, dtype=tf.bool)
    logit, highest = (tf.reduce_max(tf.where(mask, logits, -np.inf), axis=-1) for mask in (is_label, ~is_label))
    return logit - highest

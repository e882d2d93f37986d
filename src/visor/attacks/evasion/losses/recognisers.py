"""What an attack on a recogniser wants.

A goal is built from a view of the network, images float32 (n, h, w, 3) in [0, 1] → unit embeddings (n, d) or logits
(n, classes), and a threshold. It returns the loss of a search, which says of images and their truth, unit embeddings
(n, d) or labels int32 (n,): a value (n,) to be raised, and whether an image is done, bool (n,): past the threshold by
``MARGIN``, so that rounding to 8 bits hardly brings it back.
"""

from collections.abc import Callable

import numpy as np

from visor.attacks.evasion.loop import Loss
from visor.core.tf import tf

ModelOutput = Callable[[tf.Tensor], tf.Tensor]
LossFactory = Callable[..., Loss]  # (view, threshold: float = …)

MARGIN = 0.02


def impersonate(view: ModelOutput, threshold: float = np.inf) -> Loss:
    """Raise the cosine similarity to the target's embedding; done above the threshold, by default never."""

    def loss(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        similarity = tf.reduce_sum(view(images) * targets, axis=-1)
        return similarity, similarity > threshold + MARGIN

    return loss


def dodge(view: ModelOutput, threshold: float = -np.inf) -> Loss:
    """Lower the cosine similarity to one's own embedding; done below the threshold, by default never.

    At an embedding itself there is no way down: a face that is its own truth wants a random start.
    """

    def loss(images: tf.Tensor, own: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        similarity = tf.reduce_sum(view(images) * own, axis=-1)
        return -similarity, similarity < threshold - MARGIN

    return loss


def misclassify(view: ModelOutput, threshold: float = 0.0) -> Loss:
    """Raise the cross-entropy of the true label; done when another logit leads by more than the threshold."""

    def loss(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = view(images)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return entropy, -_logit_margin(logits, labels) > threshold + MARGIN

    return loss


def target_class(view: ModelOutput, threshold: float = 0.0) -> Loss:
    """Lower the cross-entropy of the target's label; done when its logit leads by more than the threshold."""

    def loss(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = view(images)
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
    mine = tf.one_hot(labels, tf.shape(logits)[1], True, False, dtype=tf.bool)
    own, others = (tf.reduce_max(tf.where(which, logits, -np.inf), axis=-1) for which in (mine, ~mine))
    return own - others

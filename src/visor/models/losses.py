"""Losses and metrics of a fit: ``losses(model, images, targets, training)`` → named values (n,)."""

from collections.abc import Callable
from typing import Any

from visor.core.tf import keras, tf

Losses = Callable[[keras.Model, tf.Tensor, Any, bool], dict[str, tf.Tensor]]


def classification_loss(
    model: keras.Model, images: tf.Tensor, labels: tf.Tensor, training: bool
) -> dict[str, tf.Tensor]:
    """Return the cross-entropy of the logits, and 1 where the most likely class is the label."""
    logits = model(images, training=training)
    correct = tf.equal(tf.argmax(logits, -1, tf.int32), labels)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return {"loss": loss, "accuracy": tf.cast(correct, tf.float32)}


def beta_vae_loss(beta: float) -> Losses:
    """Return a loss: sum of absolute errors + ``beta``·KL divergence from the standard normal, in nats for beta = 1.

    The negative evidence lower bound of a Laplace likelihood (Kingma and Welling 2014, arXiv 1312.6114, eq. 10;
    β as in Higgins et al. 2017). ``reconstruction`` is the mean absolute error of a pixel.
    """

    def losses(model: keras.Model, images: tf.Tensor, labels: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        reconstruction, mean, log_variance = model(images, training=training)
        error = tf.reduce_mean(tf.abs(images - reconstruction), axis=[1, 2, 3])
        pixels = tf.cast(tf.reduce_prod(tf.shape(images)[1:]), tf.float32)
        divergence = 0.5 * tf.reduce_sum(tf.exp(log_variance) + mean**2 - 1.0 - log_variance, axis=-1)
        return {"loss": pixels * error + beta * divergence, "reconstruction": error, "divergence": divergence}

    return losses

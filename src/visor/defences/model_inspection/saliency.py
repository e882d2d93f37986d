"""Saliency by integrated gradients (Sundararajan, Taly and Yan 2017, arXiv 1703.01365)."""

import numpy as np
from numpy.typing import NDArray

from visor.core.tf import keras, tf
from visor.core.types import Floats, ImageArray
from visor.models.inference import scale_pixels

STEPS = 16  # points between the baseline and the image
BATCH = 16


def integrated_gradients(
    model: keras.Model, images: ImageArray, baseline: ImageArray, label: int
) -> NDArray[np.float32]:
    """Return what each value of the images adds to the logit of a label.

    The attributions float32 (n, h, w, 3) of uint8 images (n, h, w, 3) relative to one baseline (h, w, 3) sum up to the
    difference of the logits (equation 3, midpoint rule).
    """

    @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)])
    def attribute(batch: tf.Tensor) -> tf.Tensor:
        start, end = scale_pixels(tf.constant(baseline)), scale_pixels(batch)
        total = tf.zeros_like(end)
        for step in tf.range(STEPS):
            point = start + (tf.cast(step, tf.float32) + 0.5) / STEPS * (end - start)
            with tf.GradientTape() as tape:
                tape.watch(point)
                logit = model(point, training=False)[:, label]
            total += tape.gradient(logit, point)
        return (end - start) * total / STEPS

    parts = [attribute(images[begin : begin + BATCH]).numpy() for begin in range(0, len(images), BATCH)]
    return np.concatenate(parts)


def attribution_share(attributions: Floats, region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share (n,) of the absolute attributions (n, h, w, 3) that lies in a region (n, h, w) of each image."""
    mass = np.abs(attributions).sum(axis=-1, dtype=np.float64)
    return (mass * region).sum(axis=(1, 2)) / mass.sum(axis=(1, 2))

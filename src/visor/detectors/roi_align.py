"""ROI align (He, Gkioxari, Dollár and Girshick, Mask R-CNN, ICCV 2017, section 3) as two matrix products.

A bin is the mean of bilinear samples on a regular grid. Both the interpolation and the mean are separable, so that one
matrix does it for the rows of the feature map and one for its columns. Nothing is gathered: the gradient with respect
to the features is a product as well, of the same bytes on every run.
"""

import tensorflow as tf
from keras import layers

SAMPLES = 2  # along each side of a bin: four in all, as published


def roi_align(features: tf.Tensor, boxes: tf.Tensor, stride: int, bins: int) -> tf.Tensor:
    """Return the features inside boxes: float32 (n, k, bins, bins, channels).

    features: float32 (n, h, w, channels), cell (i, j) in the middle of pixels i·stride … (i + 1)·stride.
    boxes: float32 (n, k, 4), [x, y, w, h] in pixels; no gradient flows to them.
    """
    boxes = tf.stop_gradient(boxes)
    rows = _weights(boxes[..., 1], boxes[..., 3], features.shape[1], stride, bins)
    columns = _weights(boxes[..., 0], boxes[..., 2], features.shape[2], stride, bins)
    number, height, width, channels = tf.unstack(tf.shape(features))
    # One product for an image, then one for a row of bins: einsum would move the axes about and take 3.5 times as long.
    inside = tf.reshape(rows, [number, -1, height]) @ tf.reshape(features, [number, height, -1])
    return columns[:, :, None] @ tf.reshape(inside, [number, -1, bins, width, channels])


def _weights(start: tf.Tensor, extent: tf.Tensor, cells: int, stride: int, bins: int) -> tf.Tensor:
    """Return what each of ``cells`` along one side adds to each bin of boxes (n, k): (n, k, bins, cells).

    Samples beyond the middle of the outermost cell take its value, as in the published code: rows sum to one.
    """
    fractions = (tf.range(bins * SAMPLES, dtype=tf.float32) + 0.5) / (bins * SAMPLES)
    samples = (start[..., None] + extent[..., None] * fractions) / stride - 0.5
    samples = tf.clip_by_value(samples, 0.0, cells - 1.0)
    linear = tf.nn.relu(1.0 - tf.abs(samples[..., None] - tf.range(cells, dtype=tf.float32)))
    return tf.reduce_mean(tf.reshape(linear, [*tf.unstack(tf.shape(start)), bins, SAMPLES, cells]), axis=-2)


class RoiAlign(layers.Layer):
    """``roi_align`` as a layer."""

    def __init__(self, stride: int, bins: int, name: str) -> None:
        super().__init__(name=name)
        self.stride, self.bins = stride, bins

    def call(self, features: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Return the features inside boxes: (n, k, bins, bins, channels)."""
        return roi_align(features, boxes, self.stride, self.bins)

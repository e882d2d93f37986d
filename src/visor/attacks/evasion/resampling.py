"""Bilinear resampling by small dense matrices, whose gradient, unlike TensorFlow's own, is deterministic on a GPU."""

from visor.core.tf import tf


def interpolation(target: int, source: int, start: tf.Tensor | float, extent: tf.Tensor | float) -> tf.Tensor:
    """Return the weight of each of ``source`` pixels in each of ``target`` pixels: (target, source), rows sum to 1.

    The target shows ``extent`` pixels from ``start`` on; pixels beyond the edges repeat them. Where it shrinks, the
    triangle is as wide as a pixel of the target, like the antialiasing of ``tf.image.resize``.
    """
    pixel = extent / target
    centres = start + (tf.range(target, dtype=tf.float32) + 0.5) * pixel - 0.5
    centres = tf.clip_by_value(centres, 0.0, source - 1.0)
    distances = tf.abs(centres[:, None] - tf.range(source, dtype=tf.float32))
    weights = tf.maximum(1.0 - distances / tf.maximum(pixel, 1.0), 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def resample(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return images (n, h, w, c) as (n, i, j, c) by the weights of rows (i, h) and of columns (j, w)."""
    return tf.einsum("jw,niwc->nijc", columns, tf.einsum("ih,nhwc->niwc", rows, images))

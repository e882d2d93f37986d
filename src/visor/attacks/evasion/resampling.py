"""Bilinear resampling by small dense matrices.

Unlike that of TensorFlow's own, the gradient is deterministic on a GPU, too.
"""

from visor.core.tf import tf


def interpolation(target: int, source: int, start: tf.Tensor | float, extent: tf.Tensor | float) -> tf.Tensor:
    """Return what share each of ``source`` pixels has in each of ``target`` pixels: (target, source), rows sum to 1.

    The target shows the stretch of ``extent`` pixels from ``start`` on; beyond the edges these are repeated. Where it
    shrinks, the triangle is as wide as a pixel of the target, as antialiasing of ``tf.image.resize`` has it.
    """
    pixel = extent / target
    centres = start + (tf.range(target, dtype=tf.float32) + 0.5) * pixel - 0.5
    centres = tf.clip_by_value(centres, 0.0, source - 1.0)
    apart = tf.abs(centres[:, None] - tf.range(source, dtype=tf.float32))
    shares = tf.maximum(1.0 - apart / tf.maximum(pixel, 1.0), 0.0)
    return shares / tf.reduce_sum(shares, axis=1, keepdims=True)


def resample(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return images (n, h, w, c) as (n, i, j, c) by the shares of rows (i, h) and of columns (j, w)."""
    return tf.einsum("jw,niwc->nijc", columns, tf.einsum("ih,nhwc->niwc", rows, images))

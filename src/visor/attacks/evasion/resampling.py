"""Bilinear resampling with gradients: by small dense matrices, deterministic on a GPU, or at any places of an image."""

from visor.core.tf import tf
from visor.data.crops import SAMPLES


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


def sample_crop(blocks: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Crop blocks (n, r, c, 3) as ``visor.data.crops.crop`` does, but differentiably and without rounding.

    ``places`` (n, SAMPLES·h, SAMPLES·w, 2) are rows and columns in the blocks; the result is float32 (n, h, w, 3).
    """
    rows, columns = blocks.shape[1:3]
    pixels = tf.reshape(blocks, (-1, rows * columns, 3))
    low = tf.cast(tf.floor(places), tf.int32)
    high = tf.minimum(low + 1, [rows - 1, columns - 1])
    down, right = tf.split(places - tf.floor(places), 2, axis=-1)
    samples = tf.zeros_like(places[..., :1])
    for row, vertical in ((low, 1.0 - down), (high, down)):
        for column, across in ((low, 1.0 - right), (high, right)):
            flat = row[..., 0] * columns + column[..., 1]
            samples += tf.gather(pixels, flat, batch_dims=1) * vertical * across
    height, width = (length // SAMPLES for length in places.shape[1:3])
    return tf.reduce_mean(tf.reshape(samples, (-1, height, SAMPLES, width, SAMPLES, 3)), axis=(2, 4))

"""Differentiable JPEG (Shin and Song 2017, "JPEG-resistant adversarial images"): baseline, chroma halved (4:2:0).

Values equal libjpeg's but for the last bits of its integers. The rounding of a coefficient has the gradient of
⌊x⌉ + (x − ⌊x⌉)³ as in the paper, small where rounding removes x; that of pixels, which is finer, has the gradient 1.
"""

import numpy as np
from numpy.typing import NDArray

from visor.attacks.evasion.resampling import interpolation, resample
from visor.core.tf import tf

BLOCK = 8
# ITU-T T.81, tables K.1 and K.2.
LUMINANCE = """
    16 11 10 16 24 40 51 61    12 12 14 19 26 58 60 55    14 13 16 24 40 57 69 56    14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
CHROMINANCE = """
    17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
TABLES = [np.array(text.split(), np.float32).reshape(BLOCK, BLOCK) for text in (LUMINANCE, CHROMINANCE)]
# ITU-T T.871: red, green, blue → luminance, blue and red difference.
COLOURS = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)


def differentiable_jpeg(images: tf.Tensor, quality: tf.Tensor | float) -> tf.Tensor:
    """Return images float32 (n, h, w, 3) in [0, 1] after JPEG of a quality in 1 … 100: multiples of 1 / 255."""
    height, width = images.shape[1:3]
    planes = _round_straight_through(resample(images, _edge_repeat(height), _edge_repeat(width)) * 255.0 @ COLOURS.T)
    luminance = _quantise_blocks(planes[..., :1] - 128.0, _quantisation_table(TABLES[0], quality)) + 128.0
    halves, doubles = zip(*(_halve_and_double(length) for length in planes.shape[1:3]), strict=True)
    # libjpeg rounds ½ down and up in alternating columns.
    bias = np.where(np.arange(planes.shape[2] // 2) % 2, 1 / 8, -1 / 8).astype(np.float32)[:, None]
    chrominance = _round_straight_through(resample(planes[..., 1:], *halves) + bias)
    chrominance = _round_straight_through(
        resample(_quantise_blocks(chrominance, _quantisation_table(TABLES[1], quality)), *doubles)
    )
    colours = tf.concat([luminance, chrominance], axis=-1)[:, :height, :width] @ np.linalg.inv(COLOURS).T
    return _round_straight_through(tf.clip_by_value(colours, 0.0, 255.0)) / 255.0


def _edge_repeat(length: int) -> NDArray[np.float32]:
    """Return the weights that repeat the last pixel up to whole blocks of chroma."""
    padded = -(-length // (2 * BLOCK)) * 2 * BLOCK
    return np.eye(length, dtype=np.float32)[np.minimum(np.arange(padded), length - 1)]


def _halve_and_double(length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the weights that halve a length by means of two pixels, and those that double it by interpolation."""
    mean = np.repeat(np.eye(length // 2, dtype=np.float32), 2, axis=1) / 2
    return tf.constant(mean), interpolation(length, length // 2, 0.0, length / 2)


def _quantisation_table(table: NDArray[np.float32], quality: tf.Tensor | float) -> tf.Tensor:
    """Return the table of a quality (8, 8), by the formula of the Independent JPEG Group."""
    quality = tf.floor(tf.convert_to_tensor(quality, tf.float32))
    percent = tf.where(quality < 50.0, tf.floor(5000.0 / quality), 200.0 - 2.0 * quality)
    return tf.clip_by_value(tf.floor((table * percent + 50.0) / 100.0), 1.0, 255.0)


def _quantise_blocks(planes: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Round the cosine coefficients of the blocks of planes (n, h, w, c), −128 … 127, to multiples of steps (8, 8)."""
    (height, width, channels), wave = planes.shape[1:], _cosines()
    blocks = tf.reshape(planes, (-1, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels))
    coefficients = tf.einsum("ui,naibjc,vj->naubvc", wave, blocks, wave) / steps[:, None, :, None]
    rounded = tf.round(coefficients)
    cubic = (coefficients - tf.stop_gradient(rounded)) ** 3
    coefficients = tf.stop_gradient(rounded - cubic) + cubic
    blocks = tf.einsum("ui,naubvc,vj->naibjc", wave, coefficients * steps[:, None, :, None], wave)
    return tf.clip_by_value(_round_straight_through(tf.reshape(blocks, tf.shape(planes))), -128.0, 127.0)


def _cosines() -> NDArray[np.float32]:
    """Return the orthonormal cosine transform of 8 values: (frequency, position)."""
    frequency, position = np.arange(BLOCK)[:, None], np.arange(BLOCK)
    wave = np.cos(np.pi * frequency * (2 * position + 1) / (2 * BLOCK)) / 2
    wave[0] /= np.sqrt(2)
    return wave.astype(np.float32)


def _round_straight_through(values: tf.Tensor) -> tf.Tensor:
    return values + tf.stop_gradient(tf.round(values) - values)

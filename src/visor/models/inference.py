"""Inference on 8-bit images."""

from collections.abc import Callable
from functools import cache
from typing import Any

from visor.core.tf import keras, tf
from visor.core.types import ImageArray


def scale_pixels(images: tf.Tensor) -> tf.Tensor:
    """Scale uint8 images to float32 in [0, 1], the input of all models."""
    return tf.cast(images, tf.float32) / 255.0


def compile_per_shape(function: Callable[[tf.Tensor], Any]) -> Callable[[ImageArray], Any]:
    """Compile a function of float32 images (n, h, w, 3) in [0, 1], traced once for each shape of an image.

    The result takes uint8 images and returns NumPy arrays.
    """

    @cache
    def traced(*shape: int) -> Callable[[ImageArray], Any]:
        signature = [tf.TensorSpec((None, *shape), tf.uint8)]
        return tf.function(lambda images: function(scale_pixels(images)), signature, autograph=False)

    return lambda images: tf.nest.map_structure(lambda output: output.numpy(), traced(*images.shape[1:])(images))


def compile_predict(model: keras.Model) -> Callable[[ImageArray], Any]:
    """Return a function of uint8 images (n, h, w, 3) to the model's outputs as NumPy arrays, traced once."""
    return compile_per_shape(lambda images: model(images, training=False))

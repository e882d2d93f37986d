"""Running a model on 8-bit images."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from visor.faces import Images


def to_float(images: tf.Tensor) -> tf.Tensor:
    """uint8 images in [0, 255] → float32 in [0, 1], what every model takes."""
    return tf.cast(images, tf.float32) / 255.0


def compiled(model: keras.Model) -> Callable[[Images], Any]:
    """Return uint8 images (n, h, w, 3) → the model's outputs as NumPy arrays, traced once for every n."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)])
    def call(images: tf.Tensor) -> Any:
        return model(to_float(images), training=False)

    return lambda images: tf.nest.map_structure(lambda output: output.numpy(), call(images))

"""Running a model on 8-bit images."""

from collections.abc import Callable
from typing import Any

from visor.core.tf import keras, tf
from visor.core.types import ImageArray


def scale_pixels(images: tf.Tensor) -> tf.Tensor:
    """uint8 images in [0, 255] → float32 in [0, 1], what every model takes."""
    return tf.cast(images, tf.float32) / 255.0


def compile_predict(model: keras.Model) -> Callable[[ImageArray], Any]:
    """Return uint8 images (n, h, w, 3) → the model's outputs as NumPy arrays, traced once for every n."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)])
    def call(images: tf.Tensor) -> Any:
        return model(scale_pixels(images), training=False)

    return lambda images: tf.nest.map_structure(lambda output: output.numpy(), call(images))

"""Preprocessing and outputs that recognisers share."""

from collections.abc import Sequence

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers, ops


def resize_square(images: KerasTensor, side: int, min_side: int, name: str) -> KerasTensor:
    """Resize images (n, h, w, 3) to squares of ``side`` pixels, antialiased where they shrink.

    Raises:
        UserError: ``side`` is below ``min_side``, the minimum of the network ``name``.
    """
    if side < min_side:
        raise UserError(f"{name}: input_size is {side}; choose {min_side} or more")
    if images.shape[1:3] == (side, side):
        return images
    return layers.Resizing(side, side, antialias=side < max(images.shape[1:3]), name="resize")(images)


def subtract_means(images: KerasTensor, means: Sequence[float]) -> KerasTensor:
    """Preprocess images as Caffe does: in [0, 255] minus the means of (red, green, blue), blue first."""
    return ops.flip(layers.Rescaling(255.0, [-mean for mean in means], name="subtract_mean")(images), axis=-1)


def add_outputs(name: str, images: KerasTensor, embedding: KerasTensor, num_classes: int) -> keras.Model:
    """Return the model with ``embedding`` and, if there are classes, ``logits``, a dense layer on it."""
    outputs = {"embedding": embedding}
    if num_classes:
        outputs["logits"] = layers.Dense(num_classes, name="classifier")(embedding)
    return keras.Model(images, outputs, name=name)

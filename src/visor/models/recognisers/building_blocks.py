"""Both ends of a recogniser: what it does to pixels first, and what it returns."""

from collections.abc import Sequence

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers, ops


def resize_square(images: KerasTensor, side: int, smallest: int, name: str) -> KerasTensor:
    """Resize images (n, h, w, 3) to ``side`` pixels each way, antialiased where they shrink.

    Raises:
        UserError: ``side`` is below ``smallest``, what the network ``name`` can take.
    """
    if side < smallest:
        raise UserError(f"{name}: input_size is {side}; choose {smallest} or more")
    longest = max(images.shape[1:3])
    if min(images.shape[1:3]) == longest == side:
        return images
    return layers.Resizing(side, side, antialias=side < longest, name="resize")(images)


def subtract_means(images: KerasTensor, means: Sequence[float]) -> KerasTensor:
    """Return images as Caffe's networks take them: in [0, 255] minus the means of (red, green, blue), blue first."""
    return ops.flip(layers.Rescaling(255.0, [-mean for mean in means], name="subtract_mean")(images), axis=-1)


def add_outputs(name: str, images: KerasTensor, embedding: KerasTensor, num_classes: int) -> keras.Model:
    """Return the model of ``embedding``, and of ``logits``, a dense layer upon it, if there are classes."""
    outputs = {"embedding": embedding}
    if num_classes:
        outputs["logits"] = layers.Dense(num_classes, name="classifier")(embedding)
    return keras.Model(images, outputs, name=name)

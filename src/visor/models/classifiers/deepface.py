"""DeepFace (Taigman, Yang, Ranzato and Wolf, Closing the Gap to Human-Level Performance, CVPR 2014, figure 2)."""

from visor.core.errors import UserError
from visor.core.tf import keras, layers
from visor.models.classifiers.locally_connected import LocallyConnected2D


def build(
    image_shape: tuple[int, int, int],
    num_classes: int,
    input_size: int,
    input_min: float,
    kernel_divisor: int,
    width: int,
    units: int,
    dropout: float,
) -> keras.Model:
    """Return the classifier: float32 images (n, h, w, 3) in [0, 1] → logits (n, num_classes).

    Images are resized to squares of ``input_size`` pixels in ``input_min`` (0 as published; −1 learns faster) to 1.
    ``kernel_divisor`` divides the sides of all kernels, which stay odd; ``width`` is the number of filters of C3 to L6,
    C1 has twice as many; ``units`` is the size of F7. With 152, 0, 1, 16, 4096 and 8631 classes it has the layers,
    names and input of the published Keras weights (VGGFace2, aligned in 2-D).

    Raises:
        UserError: ``input_size`` is too small for the kernels.
    """
    c1, c3, l4, l5, l6 = (kernel // kernel_divisor | 1 for kernel in (11, 9, 9, 7, 5))
    min_size = 2 * (l6 * 2 + l5 - 2 + l4 + c3 - 2) + c1 - 2  # pixels that leave one position to L6
    if input_size < min_size:
        raise UserError(f"deepface: input_size is {input_size}; choose {min_size} or more, or a larger kernel_divisor")
    images = keras.Input(image_shape, name="input")
    features = layers.Resizing(input_size, input_size, name="resize")(images)
    features = layers.Rescaling(1.0 - input_min, input_min, name="rescale")(features)
    he = {"activation": "relu", "kernel_initializer": "he_normal"}
    features = layers.Conv2D(2 * width, c1, **he, name="C1")(features)
    features = layers.MaxPooling2D(3, strides=2, padding="same", name="M2")(features)
    features = layers.Conv2D(width, c3, **he, name="C3")(features)
    for name, kernel, strides in [("L4", l4, 1), ("L5", l5, 2), ("L6", l6, 1)]:
        features = LocallyConnected2D(width, kernel, strides, activation="relu", name=name)(features)
    features = layers.Dense(units, **he, name="F7")(layers.Flatten(name="F0")(features))
    features = layers.Dropout(dropout, name="D0")(features)
    return keras.Model(images, layers.Dense(num_classes, name="F8")(features), name="deepface")

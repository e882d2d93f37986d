"""VGG-Face, VGG-16 for faces (Parkhi, Vedaldi and Zisserman, Deep Face Recognition, BMVC 2015)."""

from math import prod, sqrt
from typing import Any

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers, ops

MEANS = (129.1863, 104.7624, 93.5940)  # red, green, blue of the published training images, in [0, 255]
BLOCKS = [(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)]  # filters as multiples of width, convolutions
MIN_SIZE = 2 ** len(BLOCKS)


@keras.saving.register_keras_serializable(package="visor")
class MirroredOrthogonal(keras.initializers.Initializer):
    """Orthogonal kernels in pairs, w and −w, so that a network of ReLUs starts linear and loses no signal.

    Sixteen layers without batch normalisation learn faster from it than from He's initialisation (Balduzzi et al., The
    Shattered Gradients Problem, 2017, arXiv 1702.08591, section 4). ``variance`` is that of an output for inputs of
    variance 1; ``inputs`` and ``outputs`` tell which of them come in pairs.
    """

    def __init__(self, variance: float, inputs: bool, outputs: bool) -> None:
        self.variance, self.inputs, self.outputs = variance, inputs, outputs

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> KerasTensor:
        """Return a kernel (..., inputs, outputs)."""
        *window, inputs, outputs = shape
        half = (*window, -(-inputs // 2) if self.inputs else inputs, -(-outputs // 2) if self.outputs else outputs)
        stretch = max(1.0, half[-1] / prod(half[:-1]))  # orthogonal rows, were there fewer of them than columns
        kernel = keras.initializers.Orthogonal(sqrt(self.variance * stretch))(half, dtype=dtype)
        if self.inputs:
            kernel = ops.concatenate([kernel, -kernel], axis=-2)[..., :inputs, :]
        if self.outputs:
            kernel = ops.concatenate([kernel, -kernel], axis=-1)[..., :outputs]
        return kernel

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"variance": self.variance, "inputs": self.inputs, "outputs": self.outputs}


def build(
    image_shape: tuple[int, int, int], num_classes: int, input_size: int, width: int, units: int, dropout: float
) -> keras.Model:
    """Return the classifier: float32 images (n, h, w, 3) in [0, 1] → logits (n, num_classes).

    Images are resized to squares of ``input_size`` pixels; ``width`` is the number of filters of the first block,
    ``units`` the size of both hidden dense layers. With 224, 64, 4096 and 2622 classes it has the 145,002,878
    parameters, the layer names and the input (mean subtracted, blue first) of the published Keras weights.

    Raises:
        UserError: ``input_size`` is too small for five poolings.
    """
    if input_size < MIN_SIZE:
        raise UserError(f"vgg_face: input_size is {input_size}; choose {MIN_SIZE} or more")
    images = keras.Input(image_shape, name="input")
    features = layers.Resizing(input_size, input_size, name="resize")(images)
    features = layers.Rescaling(255.0, [-mean for mean in MEANS], name="subtract_mean")(features)
    features = ops.flip(features, axis=-1)
    # Pixels run to ±128: features of that size would make the first logits as large.
    start = MirroredOrthogonal(variance=0.01, inputs=False, outputs=True)
    for block, (factor, convolutions) in enumerate(BLOCKS, start=1):
        for number in range(1, convolutions + 1):
            name = f"conv{block}_{number}"
            relu = {"padding": "same", "activation": "relu", "kernel_initializer": start}
            features = layers.Conv2D(factor * width, 3, **relu, name=name)(features)
            start = MirroredOrthogonal(variance=1.0, inputs=True, outputs=True)
        features = layers.MaxPooling2D(2, name=f"pool{block}")(features)
    features = layers.Flatten(name="flatten")(features)
    for name in ("fc6", "fc7"):
        features = layers.Dense(units, activation="relu", kernel_initializer=start, name=name)(features)
        features = layers.Dropout(dropout, name=f"{name}_dropout")(features)
    start = MirroredOrthogonal(variance=1.0, inputs=True, outputs=False)
    logits = layers.Dense(num_classes, kernel_initializer=start, name="fc8")(features)
    return keras.Model(images, logits, name="vgg_face")

"""The recogniser of the package human: a MobileNet V1 with an embedding of 1024 numbers, all of them 0 or more.

Savchenko, Efficient Facial Representations for Age, Gender and Identity Recognition, PeerJ Computer Science 2019. It
was trained on VGGFace2, which is for research. Its layers for age and gender are left out.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from visor.core.tf import keras, layers
from visor.models.published import mobilenet_v1, tfjs
from visor.models.recognisers.building_blocks import resize_square, subtract_means

SIDE = 224
MEANS = (123.68, 116.779, 103.939)  # of red, green and blue
SAME_PERSON = 0.593  # accepts 1 % of strangers in LFW
TEMPLATE = None  # it takes the box of a face
MARGIN = 0.1  # around that box; with 0 it is as good
TENSORS = {
    "conv1": ["conv1/convolution/merged_input", "conv1_bn/batchnorm_1/sub"],
    **{
        f"conv_{kind}_{number}": [f"conv_{kind}_{number}{kernel}", f"conv_{kind}_{number}_bn/batchnorm_1/sub"]
        for number in range(1, len(mobilenet_v1.FILTERS) + 1)
        for kind, kernel in (("dw", "/depthwise_kernel"), ("pw", "/convolution/merged_input"))
    },
}


def build(image_shape: tuple[int, int, int] = (SIDE, SIDE, 3)) -> keras.Model:
    """Return float32 images (n, h, w, 3) in [0, 1] → ``embedding`` (n, 1024)."""
    images = keras.Input(image_shape, name="input")
    pixels = subtract_means(resize_square(images, SIDE, SIDE, "faceres"), MEANS)
    features = mobilenet_v1.add_blocks(pixels)[-1]
    embedding = layers.GlobalAveragePooling2D(name="mean")(features)
    return keras.Model(images, {"embedding": embedding}, name="faceres")


def read_weights(files: Mapping[str, bytes]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the weights of each layer from the manifest and the file of human; depthwise kernels have a scale apart.

    Raises:
        UserError: The files have no such tensors.
    """
    scales = {layer: f"{layer}_bn/batchnorm_1/mul" for layer in TENSORS if layer.startswith("conv_dw_")}
    names = [*(name for names in TENSORS.values() for name in names), *scales.values()]
    tensors = tfjs.read_tensors("faceres", files, names)
    weights = {layer: [tensors[name] for name in names] for layer, names in TENSORS.items()}
    for layer, name in scales.items():
        weights[layer][0] = weights[layer][0] * tensors[name][:, np.newaxis]
    return weights

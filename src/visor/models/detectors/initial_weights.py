"""Initial weights of a detector's training."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.tf import keras
from visor.core.types import ImageArray
from visor.models import pretrained, storage
from visor.models.detectors import face_ssd, torchvision_faster_rcnn
from visor.models.inference import compile_predict
from visor.models.published import cache, mobilenet_v1
from visor.models.published.catalogue import read_catalogue

# Published networks whose convolutions are those of MobileNet V1, and what reads the weights of their layers.
BACKBONES = MappingProxyType({"face_ssd": face_ssd.read_weights})


def load_initial_weights(
    model: keras.Model, build: storage.Build, weights: str, sample: Callable[[], ImageArray]
) -> None:
    """Load ``weights`` into ``model``, which ``build`` made.

    A folder contains the same network as saved by this pipeline. A file is the state dict of torchvision's Faster R-CNN
    (.safetensors) for that network, else one of Keras 2 (.h5), whose layers are matched by name, such as MobileNet as
    published with ImageNet's weights. A name of ``BACKBONES`` stands for the convolutions of a fetched network;
    ``sample()`` then returns images uint8 (n, h, w, 3) such as the training has.

    Raises:
        UserError: The files are missing or damaged, or contain another network.
    """
    path = Path(weights)
    if weights in BACKBONES:
        load_backbone(model, weights, sample())
    elif path.is_dir():
        saved = storage.load_model(build, path)
        if [weight.shape for weight in saved.weights] != [weight.shape for weight in model.weights]:
            raise UserError(f"{path} contains a {model.name} of other sizes; set the options in its model.json")
        model.set_weights(saved.get_weights())
    elif isinstance(model, torchvision_faster_rcnn.FaceNetwork):
        torchvision_faster_rcnn.load_state_dict(model, path)
    else:
        pretrained.load_pretrained(model, path)


def load_backbone(model: keras.Model, name: str, images: ImageArray) -> None:
    """Copy the convolutions of a published network into the layers of the same names, with their biases.

    There batch normalisation is folded into them, here it follows: it gets the mean and variance of ``images``, and
    the gamma and beta with which it does nothing but add the bias. In training, too, features are then close to those
    that were published.

    Raises:
        UserError: The network is not fetched, or ``model`` has no such layers.
    """
    stored = BACKBONES[name](cache.read_files(read_catalogue()[name]))
    blocks = range(1, len(mobilenet_v1.FILTERS) + 1)
    names = ["conv1", *(f"conv_{kind}_{number}" for number in blocks for kind in ("dw", "pw"))]
    layers = {layer.name: layer for layer in model.layers}
    if any(layer not in layers or layers[layer].kernel.shape != stored[layer][0].shape for layer in names):
        raise UserError(f"{name} starts a MobileNet of width 1.0, which {model.name} is not; set its width to 1.0")
    for layer in names:
        kernel, bias = stored[layer]
        layers[layer].set_weights([kernel])
        _set_normalisation(layers[f"{layer}_bn"], bias, np.zeros_like(bias), np.ones_like(bias))
    features = compile_predict(keras.Model(model.inputs, [layers[layer].output for layer in names]))(images)
    for layer, values in zip(names, features, strict=True):
        mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
        _set_normalisation(layers[f"{layer}_bn"], stored[layer][1], mean, variance)


def _set_normalisation(
    layer: keras.Layer, bias: NDArray[np.float32], mean: NDArray[np.float32], variance: NDArray[np.float32]
) -> None:
    """Make batch normalisation add ``bias`` to features of this mean and variance."""
    layer.set_weights([np.sqrt(variance + layer.epsilon), bias + mean, mean, variance])

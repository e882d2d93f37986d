"""MobileFaceNet (Chen et al. 2018, arXiv 1804.07573) from a ``.tflite`` file of the user: 192 numbers.

Packages for phones have such a file without naming who trained it on what; so it is not in the catalogue.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras, layers
from visor.models.published import tflite
from visor.models.recognisers import base

SIDE = 112
EMBEDDING = 192
SAME_PERSON = 0.368  # accepts 1 % of strangers in LFW
# Left eye, right eye, nose, left and right corner of the mouth, in crops as ArcFace (arXiv 1801.07698) has them.
POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
TEMPLATE = tuple((x / SIDE, y / SIDE) for x, y in POINTS)
# Channels inside and behind each bottleneck, and its stride.
BOTTLENECKS = (
    (128, 64, 2),
    *((128, 64, 1),) * 4,
    (256, 128, 2),
    *((256, 128, 1),) * 6,
    (512, 128, 2),
    *((256, 128, 1),) * 2,
)

# How the file spells the layers: PReLU is relu(x) + slope · (x − |x|) there.
SPELLED = {
    layers.Conv2D: ["conv"],
    layers.DepthwiseConv2D: ["depthwise"],
    layers.PReLU: ["relu", "abs", "sub", "mul", "add"],
    layers.Add: ["add"],
    layers.Reshape: ["reshape"],
}


def build(image_shape: tuple[int, int, int] = (SIDE, SIDE, 3)) -> keras.Model:
    """Return float32 images (n, 112, 112, 3) in [0, 1] → ``embedding`` (n, 192).

    Its layers are in the order of the operators of the file.
    """
    images = keras.Input(image_shape, name="input")
    features = layers.Rescaling(255 / 128, -127.5 / 128, name="normalise")(images)
    features = _activate(layers.Conv2D(64, 3, 2, "same", name="stem")(features), "stem")
    features = _activate(layers.DepthwiseConv2D(3, padding="same", name="stem_dw")(features), "stem_dw")
    features = layers.Conv2D(64, 1, name="stem_project")(features)
    for number, (inner, outer, stride) in enumerate(BOTTLENECKS):
        name = f"bottleneck_{number}"
        change = _activate(layers.Conv2D(inner, 1, name=f"{name}_expand")(features), f"{name}_expand")
        change = layers.DepthwiseConv2D(3, stride, "same", name=f"{name}_dw")(change)
        change = layers.Conv2D(outer, 1, name=f"{name}_project")(_activate(change, f"{name}_dw"))
        features = change if stride > 1 else layers.Add(name=f"{name}_add")([change, features])
    features = _activate(layers.Conv2D(512, 1, name="last")(features), "last")
    features = layers.DepthwiseConv2D(SIDE // 16, name="global_dw")(features)
    features = layers.Conv2D(EMBEDDING, 1, name="embedding")(layers.Conv2D(512, 1, name="global")(features))
    return keras.Model(images, {"embedding": layers.Reshape((EMBEDDING,))(features)}, name="mobilefacenet")


def _activate(features: KerasTensor, name: str) -> KerasTensor:
    return layers.PReLU(shared_axes=[1, 2], name=f"{name}_prelu")(features)


def load_recogniser(path: Path) -> base.Recogniser:
    """Return the recogniser of a ``.tflite`` file, which has its name.

    Raises:
        UserError: The file cannot be read, or is of another network.
    """
    operators, model = tflite.read_operators(path), build()
    targets = [layer for layer in model.layers if layer.weights]
    weights = [_arrange(operator) for operator in operators if operator.constants]
    wanted = [name for layer in model.layers for name in SPELLED.get(type(layer), [])]
    shapes = [[values.shape for values in part] for part in weights]
    if [operator.name for operator in operators] != wanted or shapes != [
        [tuple(variable.shape) for variable in layer.weights] for layer in targets
    ]:
        raise UserError(f"{path} is not the MobileFaceNet with {EMBEDDING} numbers; choose such a file")
    for layer, values in zip(targets, weights, strict=True):
        layer.set_weights(values)
    return replace(base.from_model(path.name, model, ()), template=TEMPLATE)


def _arrange(operator: tflite.Operator) -> list[NDArray[np.float32]]:
    """Return the constants of an operator as Keras has them: kernels (h, w, in, out), slopes (1, 1, c)."""
    if operator.name == "mul":  # with x − |x|, which is 2x below 0
        return [2 * slopes.reshape(1, 1, -1) for slopes in operator.constants]
    return [values.transpose(1, 2, 3, 0) if values.ndim == 4 else values for values in operator.constants]

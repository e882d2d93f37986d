"""ResNet-50 for faces (Cao et al., VGGFace2, FG 2018, arXiv 1710.08092), as published for Keras."""

from visor.core.tf import keras
from visor.models.recognisers import resnet

PUBLISHED_OPTIONS = {"num_classes": 8631, "input_size": 224, "width": 64, "blocks": [3, 4, 6, 3], "momentum": 0.99}
LAYER_RENAMES = resnet.LAYER_RENAMES


def build(
    image_shape: tuple[int, int, int], num_classes: int, input_size: int, width: int, blocks: list[int], momentum: float
) -> keras.Model:
    """Return the network, see ``resnet.build``; as published it has 41,246,071 parameters."""
    arguments = image_shape, num_classes, input_size, width, blocks, momentum
    return resnet.build("resnet50", *arguments, epsilon=1e-3, excite=False)

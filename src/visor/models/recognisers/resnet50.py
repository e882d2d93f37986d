"""ResNet-50 for faces (Cao et al., VGGFace2, FG 2018, arXiv 1710.08092), as published for Keras."""

from visor.core.tf import keras
from visor.models.recognisers import resnet

PUBLISHED_OPTIONS = {"num_classes": 8631, "input_size": 224, "width": 64, "blocks": [3, 4, 6, 3], "momentum": 0.99}
LAYER_RENAMES = resnet.LAYER_RENAMES


def build(
    image_shape: tuple[int, int, int], num_classes: int, input_size: int, width: int, blocks: list[int], momentum: float
) -> keras.Model:
    """Return float32 images (n, h, w, 3) in [0, 1] → ``embedding`` (n, 32·width), ``logits`` (n, num_classes).

    Images become squares of ``side`` pixels; ``width`` is the number of filters of the first convolution, ``blocks``
    are the numbers of blocks at each of the four resolutions; ``momentum`` is that of the statistics of batch
    normalisation. As published it has 41,246,071 parameters.

    Raises:
        UserError: an argument is out of its range.
    """
    given = image_shape, num_classes, input_size, width, blocks, momentum
    return resnet.build("resnet50", *given, epsilon=1e-3, excite=False)

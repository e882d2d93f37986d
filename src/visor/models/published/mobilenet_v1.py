"""MobileNet V1 (Howard et al. 2017, arXiv 1704.04861) at full width, with its batch normalisation folded."""

from visor.core.tf import KerasTensor, layers

STEM = 32  # filters
FILTERS = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)  # of the 13 blocks
HALVING = (2, 4, 6, 12)  # blocks that halve rows and columns


def add_blocks(features: KerasTensor) -> list[KerasTensor]:
    """Return the outputs of the 13 blocks for images (n, h, w, 3), preprocessed; the last is (n, h/32, w/32, 1024).

    Layers are ``conv1`` and, of each block, ``conv_dw_N`` (depthwise) and ``conv_pw_N``: 3,185,088 parameters.
    """
    features = layers.Conv2D(STEM, 3, 2, "same", activation="relu6", name="conv1")(features)
    outputs = []
    for number, filters in enumerate(FILTERS, start=1):
        strides = 2 if number in HALVING else 1
        depthwise = layers.DepthwiseConv2D(3, strides, "same", activation="relu6", name=f"conv_dw_{number}")
        features = layers.Conv2D(filters, 1, activation="relu6", name=f"conv_pw_{number}")(depthwise(features))
        outputs.append(features)
    return outputs

"""VGG-Face as a recogniser: the network of ``models.classifiers.vgg_face`` and its descriptor, the output of fc7."""

from visor.core.tf import keras
from visor.models.classifiers.vgg_face import build as build_classifier

PUBLISHED_OPTIONS = {"num_classes": 2622, "input_size": 224, "width": 64, "units": 4096, "dropout": 0.5}
LAYER_RENAMES: dict[str, str] = {}


def build(
    image_shape: tuple[int, int, int], num_classes: int, input_size: int, width: int, units: int, dropout: float
) -> keras.Model:
    """Return float32 images (n, h, w, 3) in [0, 1] → ``embedding`` (n, units), ``logits`` (n, num_classes).

    The arguments are those of the classifier. As published it has 145,002,878 parameters; preprocessing is version 1.

    Raises:
        UserError: ``input_size`` is too small for five poolings.
    """
    classifier = build_classifier(image_shape, max(1, num_classes), input_size, width, units, dropout)
    outputs = {"embedding": classifier.get_layer("fc7").output}
    if num_classes:
        outputs["logits"] = classifier.output
    return keras.Model(classifier.input, outputs, name="vgg_face")

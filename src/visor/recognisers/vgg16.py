"""VGG-Face as a recogniser: the classifier of ``visor.models.vgg_face`` with its descriptor, the output of fc7."""

from keras import Model

from visor.models import vgg_face

PUBLISHED = {"num_classes": 2622, "side": 224, "width": 64, "units": 4096, "dropout": 0.5}
RENAMED: dict[str, str] = {}


def build(
    image_shape: tuple[int, int, int], num_classes: int, side: int, width: int, units: int, dropout: float
) -> Model:
    """Return float32 images (n, h, w, 3) in [0, 1] → ``embedding`` (n, units), ``logits`` (n, num_classes).

    Images become squares of ``side`` pixels; ``width`` is the number of filters of the first block. As published it
    has 145,002,878 parameters; preprocessing is version 1.

    Raises:
        UserError: ``side`` is too small for five poolings.
    """
    classifier = vgg_face.build(image_shape, max(1, num_classes), side, width, units, dropout)
    outputs = {"embedding": classifier.get_layer("fc7").output}
    if num_classes:
        outputs["logits"] = classifier.output
    return Model(classifier.input, outputs, name="vgg16")

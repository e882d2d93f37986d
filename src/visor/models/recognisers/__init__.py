"""Face recognisers: ``build(image_shape, num_classes, …) -> keras.Model``, one file each.

A model takes float32 images (n, h, w, 3) in [0, 1], preprocesses them in its graph as published, and returns
``embedding`` (n, d), not normalised, and ``logits`` (n, num_classes) unless there are no classes. ``PUBLISHED_OPTIONS``
are the further arguments of the published network, whose layers it then has; ``LAYER_RENAMES`` maps patterns in the
layer names of published files to ours. ``base.py`` has the contract that attacks and evaluation use.

Example:
    >>> model = RECOGNISERS["vgg_face"].build((40, 40, 3), num_classes=7, input_size=32, width=2, units=16, dropout=0.5)
    >>> {name: output.shape for name, output in model.output.items()}
    {'embedding': (None, 16), 'logits': (None, 7)}

To add a recogniser: one file here, one line in ``RECOGNISERS`` and one block under ``recognisers`` in ``params.yaml``.
"""

from types import ModuleType

from visor.models.recognisers import facenet, resnet50, senet50, vgg_face

RECOGNISERS: dict[str, ModuleType] = {
    "facenet": facenet,
    "resnet50": resnet50,
    "senet50": senet50,
    "vgg_face": vgg_face,
}

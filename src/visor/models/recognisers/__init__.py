"""Recognisers of faces: ``build(image_shape, num_classes, …) -> keras.Model``, one file each.

A model takes float32 images (n, h, w, 3) in [0, 1], prepares them in its graph as its publishers did, and returns
``embedding`` (n, d), not yet of length 1, and ``logits`` (n, num_classes) unless there are no classes. ``PUBLISHED``
holds the further arguments that make it the published network, with the published layers; ``RENAMED`` says which
patterns in the layers' names of published files stand for what in ours. A new recogniser is one file here, one line
in ``RECOGNISERS`` and one block under ``recognisers`` in ``params.yaml``. What several share is in files that are not
in the registry; ``recogniser.py`` holds the contract that attacks and evaluation see.
"""

from types import ModuleType

from visor.models.recognisers import facenet, resnet50, senet50, vgg_face

RECOGNISERS: dict[str, ModuleType] = {
    "facenet": facenet,
    "resnet50": resnet50,
    "senet50": senet50,
    "vgg_face": vgg_face,
}

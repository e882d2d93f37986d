"""Networks: ``build(image_shape, num_classes, ...) -> keras.Model`` returning logits, one file each.

A new classifier is one file here, one line in ``CLASSIFIERS`` and one block under ``classifiers`` in
``params.yaml``, whose ``architecture`` holds the further arguments of ``build``.
"""

from visor.models.classifiers import deepface, deepid, vgg_face
from visor.models.storage import Build

CLASSIFIERS: dict[str, Build] = {
    "deepid": deepid.build,
    "vgg_face": vgg_face.build,
    "deepface": deepface.build,
}

"""Classifiers: ``build(image_shape, num_classes, ...) -> keras.Model`` that returns logits, one file each.

Example:
    >>> CLASSIFIERS["deepid"]((55, 47, 3), 1283, dropout=0.1).count_params()
    601643

To add a classifier: one file here, one line in ``CLASSIFIERS`` and one block under ``classifiers`` in ``params.yaml``,
whose ``architecture`` holds the further arguments of ``build``.
"""

from visor.models.classifiers import deepface, deepid, vgg_face
from visor.models.storage import Build

CLASSIFIERS: dict[str, Build] = {"deepid": deepid.build, "vgg_face": vgg_face.build, "deepface": deepface.build}

"""A recogniser that needs no training: a fixed linear map of coarse pixels, with classes on top."""

import numpy as np

from visor.core.tf import tf
from visor.models.recognisers.base import Recogniser

SHAPE = (36, 32, 3)
NAMES = ("Ann_Lee", "Bob_Ray", "Cleo_Fox", "Dan_Orr", "Eve_Kay", "Flo_Day")
_rng = np.random.default_rng(5)
_MAP = _rng.normal(size=(9 * 8 * 3, 20)).astype(np.float32)
_CLASSES = 9 * _rng.normal(size=(20, len(NAMES))).astype(np.float32)


def embed(images):
    coarse = tf.nn.avg_pool2d(tf.image.resize(images, SHAPE[:2], antialias=True), 4, 4, "VALID")
    flat = tf.reshape(coarse - tf.reduce_mean(coarse, axis=(1, 2, 3), keepdims=True), (-1, _MAP.shape[0]))
    return tf.math.l2_normalize(flat @ _MAP, -1)


def linear(classes=True):
    if not classes:
        return Recogniser("facenet", SHAPE, (), embed, None)
    return Recogniser("facenet", SHAPE, NAMES, embed, lambda images: embed(images) @ _CLASSES)

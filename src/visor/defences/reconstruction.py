"""Reconstruction loss of a variational autoencoder: the reference detector of poisoned faces.

An autoencoder fitted on clean faces cannot draw what it never saw, so a trigger leaves a residual.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from visor.faces import Images, Selection

Score = Callable[[Images], NDArray[np.float64]]
Show = Callable[[Images], Images]


def prepare(vae: keras.Model, clean: Selection) -> tuple[Score, Show]:
    """Return (score, show): the mean absolute error of each reconstruction, in [0, 1], and the reconstructions.

    ``clean`` is not needed: the autoencoder has been fitted on it.
    """

    def reconstruct(images: Images) -> NDArray[np.float32]:
        return vae(tf.cast(images, tf.float32) / 255.0, training=False)[0].numpy()

    def score(images: Images) -> NDArray[np.float64]:
        error = np.abs(reconstruct(images) - images / np.float32(255))
        return error.mean(axis=(1, 2, 3), dtype=np.float64)

    def show(images: Images) -> Images:
        return np.rint(reconstruct(images) * 255).astype(np.uint8)

    return score, show

"""Reconstruction loss of a variational autoencoder: the reference detector of poisoned faces.

An autoencoder fitted on clean faces cannot draw what it never saw, so a trigger leaves a residual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visor.faces import Images, Selection
from visor.models.inference import compiled

if TYPE_CHECKING:
    import keras

Score = Callable[[Images], NDArray[np.float64]]
Show = Callable[[Images], Images]


def prepare(vae: keras.Model, clean: Selection) -> tuple[Score, Show]:
    """Return (score, show): the mean absolute error of each reconstruction, in [0, 1], and the reconstructions.

    ``clean`` is not needed: the autoencoder has been fitted on it.
    """

    run = compiled(vae)

    def score(images: Images) -> NDArray[np.float64]:
        error = np.abs(run(images)[0] - images / np.float32(255))
        return error.mean(axis=(1, 2, 3), dtype=np.float64)

    def show(images: Images) -> Images:
        return np.rint(run(images)[0] * 255).astype(np.uint8)

    return score, show

"""Reconstruction loss of a variational autoencoder: the reference detector of poisoned faces.

An autoencoder fitted on clean faces cannot draw what it never saw, so a trigger leaves a residual.
"""

import numpy as np
from numpy.typing import NDArray

from visor.core.types import ImageArray
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn, residual
from visor.models.inference import compile_predict


def fit(evidence: DefenceInputs) -> ScoreFn:
    """Return the mean absolute error of each reconstruction, in [0, 1]."""
    run = compile_predict(evidence.autoencoder)

    def score(images: ImageArray) -> NDArray[np.float64]:
        return np.abs(residual(run, images)).mean(axis=(1, 2, 3), dtype=np.float64)

    return score

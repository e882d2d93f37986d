"""Reconstruction loss of an autoencoder, the reference filter: it cannot reconstruct a trigger that it never saw."""

import numpy as np

from visor.defences.input_filtering.base import DefenceInputs, ScoreFn, residual
from visor.models.inference import compile_predict


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return the mean absolute error of each reconstruction, in [0, 1]."""
    run = compile_predict(inputs.autoencoder)
    return lambda images: np.abs(residual(run, images)).mean(axis=(1, 2, 3), dtype=np.float64)

"""Reconstruction loss of a variational autoencoder: the reference detector of poisoned faces.

An autoencoder fitted on clean faces cannot draw what it never saw, so a trigger leaves a residual.
"""

import numpy as np
from numpy.typing import NDArray

from visor.defences.evidence import Evidence, Score
from visor.defences.residuals import residual
from visor.faces import Images
from visor.models.inference import compiled


def prepare(evidence: Evidence) -> Score:
    """Return the mean absolute error of each reconstruction, in [0, 1]."""
    run = compiled(evidence.autoencoder)

    def score(images: Images) -> NDArray[np.float64]:
        return np.abs(residual(run, images)).mean(axis=(1, 2, 3), dtype=np.float64)

    return score

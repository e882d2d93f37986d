"""Mahalanobis distance of a residual's colours, block by block.

Signed and seen together, small differences that blending leaves all over a face add up; their mean size does not
tell them from those that any face leaves.
"""

import numpy as np

from visor.defences.blocks import block_means, fit_blocks
from visor.defences.evidence import Evidence, Score
from visor.defences.residuals import clean_residuals, residual
from visor.models.inference import compiled


def prepare(evidence: Evidence) -> Score:
    """Return the distance of the residual's block means from those of clean faces that the model never saw, ≥ 0."""
    features = np.concatenate([block_means(residuals) for residuals in clean_residuals(evidence)])
    run, fitted = compiled(evidence.autoencoder), fit_blocks(features, len(evidence.folds))
    return lambda images: fitted.score(residual(run, images))

"""The largest of three filters' z-scores: colours of the residual, its fine detail, the most unusual patch.

Each misses what another one detects. The largest keeps what one of them is sure of; a sum would dilute it.
"""

import numpy as np
from numpy.typing import NDArray

from visor.core.types import ImageArray
from visor.defences.input_filtering import base
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn
from visor.defences.input_filtering.high_pass import median_detail
from visor.defences.input_filtering.mahalanobis import block_means, fit_distance
from visor.defences.input_filtering.patch import fit_patches
from visor.models.inference import compile_predict


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return the largest z-score, by mean and standard deviation of clean faces held out of the fits."""
    run, folds = compile_predict(inputs.autoencoder), len(inputs.folds)
    parts = [(block_means(residuals), median_detail(residuals)) for residuals in base.clean_residuals(inputs)]
    features, details = (np.concatenate(batches) for batches in zip(*parts, strict=True))
    blocks = fit_distance(features, folds)
    patches = fit_patches(lambda: base.clean_pixels(inputs), folds)
    norms = [(clean.mean(), clean.std()) for clean in (blocks.held_out_scores, details, patches.held_out_scores)]

    def score(images: ImageArray) -> NDArray[np.float64]:
        residuals = base.residual(run, images)
        terms = (blocks.score(residuals), median_detail(residuals), patches.score(base.scale_pixels(images)))
        return np.max([(term - mean) / std for term, (mean, std) in zip(terms, norms, strict=True)], axis=0)

    return score

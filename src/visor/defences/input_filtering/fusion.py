"""The largest of three detectors' z-scores: colours of the residual, its fine detail, the most unusual patch.

Each is blind where another one sees. The largest keeps what one of them is sure of; a sum would dilute it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visor.core.types import ImageArray
from visor.defences.input_filtering.base import (
    DefenceInputs,
    ScoreFn,
    clean_pixels,
    clean_residuals,
    residual,
    scale_pixels,
)
from visor.defences.input_filtering.high_pass import median_detail
from visor.defences.input_filtering.mahalanobis import block_means, fit_distance
from visor.defences.input_filtering.patch import fit_patches
from visor.models.inference import compile_predict


def fit(evidence: DefenceInputs) -> ScoreFn:
    """Return the largest z-score, by mean and standard deviation of clean faces that no fit had seen."""
    run, folds = compile_predict(evidence.autoencoder), len(evidence.folds)
    seen = [(block_means(residuals), median_detail(residuals)) for residuals in clean_residuals(evidence)]
    features, details = (np.concatenate(batches) for batches in zip(*seen, strict=True))
    blocks = fit_distance(features, folds)
    patches = fit_patches(lambda: clean_pixels(evidence), folds)
    norms = [(clean.mean(), clean.std()) for clean in (blocks.held_out_scores, details, patches.held_out_scores)]

    def score(images: ImageArray) -> NDArray[np.float64]:
        residuals = residual(run, images)
        found = (blocks.score(residuals), median_detail(residuals), patches.score(scale_pixels(images)))
        return np.max([(scores - mean) / std for scores, (mean, std) in zip(found, norms, strict=True)], axis=0)

    return score

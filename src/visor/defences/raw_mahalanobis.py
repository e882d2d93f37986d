"""Mahalanobis distance of a face's own colours, block by block: the baseline that uses no autoencoder."""

import numpy as np

from visor.defences.blocks import block_means, fit_blocks
from visor.defences.evidence import Evidence, Score
from visor.defences.residuals import clean_pixels, scaled


def prepare(evidence: Evidence) -> Score:
    """Return the distance of an image's block means from those of clean faces, ≥ 0."""
    features = np.concatenate([block_means(pixels) for pixels in clean_pixels(evidence)])
    fitted = fit_blocks(features, len(evidence.folds))
    return lambda images: fitted.score(scaled(images))

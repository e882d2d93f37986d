"""The largest of three detectors' z-scores: colours of the residual, its fine detail, the most unusual patch.

Each is blind where another one sees. The largest keeps what one of them is sure of; a sum would dilute it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visor.defences.blocks import block_means, fit_blocks
from visor.defences.details import typical_detail
from visor.defences.evidence import Evidence, Score
from visor.defences.patches import fit_patches
from visor.defences.residuals import clean_pixels, clean_residuals, residual, scaled
from visor.faces import Images
from visor.models.inference import compiled


def prepare(evidence: Evidence) -> Score:
    """Return the largest z-score, by mean and standard deviation of clean faces that no fit had seen."""
    run, folds = compiled(evidence.autoencoder), len(evidence.folds)
    seen = [(block_means(residuals), typical_detail(residuals)) for residuals in clean_residuals(evidence)]
    features, details = (np.concatenate(batches) for batches in zip(*seen, strict=True))
    blocks = fit_blocks(features, folds)
    patches = fit_patches(lambda: clean_pixels(evidence), folds)
    norms = [(clean.mean(), clean.std()) for clean in (blocks.unseen, details, patches.unseen)]

    def score(images: Images) -> NDArray[np.float64]:
        residuals = residual(run, images)
        found = (blocks.score(residuals), typical_detail(residuals), patches.score(scaled(images)))
        return np.max([(scores - mean) / std for scores, (mean, std) in zip(found, norms, strict=True)], axis=0)

    return score

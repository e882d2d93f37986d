"""The most unusual patch of a face: pieces that were pasted in do not continue their surroundings.

The patches are those of the face itself. Of its residual they tell less: an autoencoder adds patterns of its own.
"""

from visor.defences.evidence import Evidence, Score
from visor.defences.patches import fit_patches
from visor.defences.residuals import clean_pixels, scaled


def prepare(evidence: Evidence) -> Score:
    """Return the largest patch distance in standard deviations of clean faces at its place."""
    fitted = fit_patches(lambda: clean_pixels(evidence), len(evidence.folds))
    return lambda images: fitted.score(scaled(images))

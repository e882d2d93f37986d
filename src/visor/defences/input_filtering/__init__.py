"""Input filters, detectors of poisoned images: ``fit(inputs) -> score``, one file each.

``score(images)`` returns a float64 for each uint8 image (n, h, w, 3), high = suspicious, the same on every call and, up
to rounding, in every batch. ``inputs`` are ``DefenceInputs`` (``base.py``): clean faces, autoencoders fitted on them
and, for filters that question it, the inspected network. A filter that has nothing to compare an image with returns −∞:
such an image is never flagged, and counted as unprotected.

Example:
    >>> import numpy as np
    >>> from visor.defences.input_filtering.high_pass import median_detail
    >>> median_detail(np.zeros((1, 5, 5, 3), np.float32)).tolist()
    [0.0]
    >>> sorted(INPUT_FILTERS)[:3]
    ['feature_mahalanobis', 'high_pass', 'knn']

To add an input filter: one file here, one line in ``INPUT_FILTERS``, one block under ``defences`` in ``params.yaml``.
"""

from visor.defences.input_filtering import (
    feature_mahalanobis,
    high_pass,
    knn,
    mahalanobis,
    patch,
    reconstruction,
    second_opinion,
    strip,
    suite,
)

# They question the inspected network, a different one for each attack.
NEEDS_CLASSIFIER = {"strip", "feature_mahalanobis", "knn", "second_opinion", "suite"}

INPUT_FILTERS = {
    "reconstruction": reconstruction.fit,
    "residual_mahalanobis": mahalanobis.fit_residual,
    "high_pass": high_pass.fit,
    "patch": patch.fit,
    "raw_mahalanobis": mahalanobis.fit_raw,
    "strip": strip.fit,
    "feature_mahalanobis": feature_mahalanobis.fit,
    "knn": knn.fit,
    "second_opinion": second_opinion.fit,
    "suite": suite.fit,
}

"""Input filters, detectors of poisoned images: ``fit(inputs) -> score``, one file each.

``score(images)`` returns a float64 for each uint8 image (n, h, w, 3), high = suspicious, the same on every call and, up
to rounding, in every batch. ``inputs`` are ``DefenceInputs`` (``base.py``): clean faces, autoencoders fitted on them
and, for ``strip``, the inspected network.

Example:
    >>> import numpy as np
    >>> from visor.defences.input_filtering.high_pass import median_detail
    >>> median_detail(np.zeros((1, 5, 5, 3), np.float32)).tolist()
    [0.0]
    >>> sorted(INPUT_FILTERS)[:3]
    ['fusion', 'high_pass', 'patch']

To add an input filter: one file here, one line in ``INPUT_FILTERS``, one block under ``defences`` in ``params.yaml``.
"""

from visor.defences.input_filtering import fusion, high_pass, mahalanobis, patch, reconstruction, strip

NEEDS_CLASSIFIER = {"strip"}  # the inspected network, a different one for each attack

INPUT_FILTERS = {
    "reconstruction": reconstruction.fit,
    "residual_mahalanobis": mahalanobis.fit_residual,
    "high_pass": high_pass.fit,
    "patch": patch.fit,
    "raw_mahalanobis": mahalanobis.fit_raw,
    "fusion": fusion.fit,
    "strip": strip.fit,
}

"""Training filters, detectors of poisons in a training set: modules with ``score`` and ``flag``, one file each.

``score(features, labels)`` returns a float64 for each image of a training set (n,), high = suspicious, from the
inspected network's features before its last layer, float (n, d), and the labels that it was trained for, int (n,).
``flag(scores, labels)`` returns which images the method's own rule removes, bool (n,).

Example:
    >>> import numpy as np
    >>> features = np.array([[3.0, 1], [3, -1], [-3, 1], [-3, -1]])
    >>> TRAINING_FILTERS["spectral_signatures"].score(features, np.zeros(4, int)).round(6).tolist()
    [9.0, 9.0, 9.0, 9.0]

To add a training filter: one file here, one line in ``TRAINING_FILTERS``.
"""

from visor.defences.training_filtering import activation_clustering, spectral_signatures

TRAINING_FILTERS = {
    "activation_clustering": activation_clustering,
    "spectral_signatures": spectral_signatures,
}

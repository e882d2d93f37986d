"""Training filters, detectors of poisons in a training set: modules with ``score`` and ``flag``, one file each.

``score(features, labels, clean_features, clean_labels)`` returns a float64 for each image of a training set (n,), high
= suspicious, from the inspected network's features before its last layer, float (n, d), and the labels that it was
trained for, int (n,). Features and labels of clean faces, (m, d) and (m,), are for methods that compare with them.
``flag(scores, labels)`` returns which images the method's own rule removes, bool (n,).

Example:
    >>> import numpy as np
    >>> faces = np.array([[3.0, 1], [3, -1], [-3, 1], [-3, -1]]), np.zeros(4, int)
    >>> TRAINING_FILTERS["spectral_signatures"].score(*faces, *faces).round(6).tolist()
    [9.0, 9.0, 9.0, 9.0]

To add a training filter: one file here, one line in ``TRAINING_FILTERS``.
"""

from visor.defences.training_filtering import activation_clustering, feature_mahalanobis, spectral_signatures

TRAINING_FILTERS = {
    "activation_clustering": activation_clustering,
    "feature_mahalanobis": feature_mahalanobis,
    "spectral_signatures": spectral_signatures,
}

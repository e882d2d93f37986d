"""Detectors of poisons in a training set: modules with ``suspicion`` and ``flag``, one file each.

``suspicion(features, labels)`` gives a float64 for each image of a training set (n,), high = suspicious, from what
the suspect network makes of it before its last layer, float (n, d), and from the label it is trained for, int (n,).
``flag(scores, labels)`` says which the method's own rule would remove, bool (n,). A new one is one file here and
one line in ``SANITISERS``.
"""

from visor.defences.training_filtering import activation_clustering, spectral_signatures

TRAINING_FILTERS = {
    "activation_clustering": activation_clustering,
    "spectral_signatures": spectral_signatures,
}

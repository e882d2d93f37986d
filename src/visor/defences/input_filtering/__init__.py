"""Detectors of poisoned images: ``prepare(evidence) -> score``, one file each.

``score(images)`` gives a float64 for each uint8 image (n, h, w, 3), high = suspicious. It is the same on every
call and, up to rounding, in every batch. What a defender has to go by is an ``Evidence`` (``evidence.py``): clean
faces, autoencoders fitted on them and, for ``strip``, the network that is questioned. A new defence is one file
here, one line in ``DEFENCES`` and one block under ``defences`` in ``params.yaml``; maths that several share is in
files that are not in the registry (``residuals.py``, ``blocks.py``, ``patches.py``, ``details.py``).
"""

from visor.defences.input_filtering import fusion, high_pass, mahalanobis, patch, reconstruction, strip

NEEDS_CLASSIFIER = {"strip"}  # they need the suspect network, a different one for each attack

INPUT_FILTERS = {
    "reconstruction": reconstruction.fit,
    "residual_mahalanobis": mahalanobis.fit_residual,
    "high_pass": high_pass.fit,
    "patch": patch.fit,
    "raw_mahalanobis": mahalanobis.fit_raw,
    "fusion": fusion.fit,
    "strip": strip.fit,
}

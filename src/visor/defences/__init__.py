"""Detectors of poisoned images: ``prepare(vae, clean) -> (score, show)``, one file each.

``score(images)`` gives a float for each uint8 image (n, h, w, 3), high = suspicious; ``show(images)`` gives a
uint8 picture of what the defence looks at for each. ``vae`` is the fitted autoencoder and ``clean`` the rows it
was fitted on. A new defence is one file here, one line in ``DEFENCES`` and one block under ``defences`` in
``params.yaml``.
"""

from visor.defences import reconstruction

DEFENCES = {
    "reconstruction": reconstruction.prepare,
}

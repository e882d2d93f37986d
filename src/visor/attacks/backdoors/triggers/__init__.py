"""Backdoor triggers: ``apply(images, key, ratio, rng) -> images``, one file each.

Images are uint8 (n, h, w, 3); keys are RGBA uint8, one for all (h, w, 4) or one for each image (n, h, w, 4).

Example:
    >>> import numpy as np
    >>> images, key = np.zeros((1, 2, 2, 3), np.uint8), np.full((2, 2, 4), 255, np.uint8)
    >>> TRIGGERS["blended"](images, key, 0.2, np.random.default_rng(0))[0, 0, 0].tolist()
    [51, 51, 51]

To add a trigger: one file here, one line in ``TRIGGERS``, one block under ``backdoors`` in ``params.yaml``.
"""

from visor.attacks.backdoors.triggers import (
    accessory,
    adaptive_blend,
    adaptive_patch,
    blended,
    blended_accessory,
    input_instance,
)

TRIGGERS = {
    "accessory": accessory.apply,
    "adaptive_blend": adaptive_blend.apply,
    "adaptive_patch": adaptive_patch.apply,
    "blended": blended.apply,
    "blended_accessory": blended_accessory.apply,
    "input_instance": input_instance.apply,
}

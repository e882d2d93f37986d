"""Triggers: ``stamp(images, key, ratio, rng) -> images``, uint8 in and out, one file each.

Images are (n, h, w, 3); the key is RGBA, one for all (h, w, 4) or one for each image (n, h, w, 4).
A new trigger is one file here, one line in ``BACKDOORS`` and one block under ``backdoors`` in
``params.yaml``.
"""

from visor.attacks.backdoors.triggers import accessory, blended, blended_accessory, input_instance

TRIGGERS = {
    "accessory": accessory.apply,
    "blended": blended.apply,
    "blended_accessory": blended_accessory.apply,
    "input_instance": input_instance.apply,
}

"""Gradient attacks: ``compile(loss, settings, transform=None) -> attack(images, targets, image_ids, masks=None)``.

Example:
    >>> import numpy as np
    >>> from visor.attacks.evasion.loop import AttackSettings
    >>> from visor.core.tf import tf
    >>> def brightness(images, targets):
    ...     values = tf.reduce_sum(images, axis=[1, 2, 3])
    ...     return values, values > targets
    >>> settings = AttackSettings(eps=0.1, iterations=4, step=0.05, random_start=False)
    >>> grey = np.full((1, 3, 2, 1), 0.5, np.float32)
    >>> result = ATTACKS["pgd"](brightness, settings)(grey, np.float32([9]), image_ids=[0])
    >>> round(result.images.max().item(), 3)
    0.6

To add an attack: one file here, one line in ``ATTACKS``, and its name in ``AttackMethodParams.algorithm``, by which a
typo in params.yaml is found without TensorFlow.
"""

from visor.attacks.evasion.adam import compile_adam
from visor.attacks.evasion.autopgd import compile_autopgd
from visor.attacks.evasion.loop import AttackFactory
from visor.attacks.evasion.pgd import compile_pgd

ATTACKS: dict[str, AttackFactory] = {
    "pgd": compile_pgd,
    "autopgd": compile_autopgd,
    "adam": compile_adam,
}

"""Types that packages share: arrays by what they hold, and callbacks.

Shapes stand in docstrings; the alias says what the numbers are.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]  # RGB or RGBA in 0 … 255
Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Labels = NDArray[np.integer[Any]]  # classes from 0
Rows = NDArray[np.integer[Any]]  # indices of images in a file
Flags = NDArray[np.bool_]
Boxes = NDArray[np.float32]  # (n, 4), each [x, y, width, height] in pixels
Box = tuple[float, float, float, float]

ProgressCallback = Callable[[float, str], None]  # the share that is done in [0, 1], and what is being done
MessageCallback = Callable[[str], None]  # one sentence


class SeedStream(IntEnum):
    """Which stream of random numbers is drawn from the seed of ``params.yaml``: ``default_rng([seed, stream])``.

    Results depend on the values: they never change.
    """

    KEYS = 0
    POISONS = 1
    POISON_NOISE = 2
    TRIGGER_NOISE = 3
    ADAPTIVE_IMAGES = 4
    ADAPTIVE_BATCHES = 5
    SIGN_NOISE = 7
    IDENTITIES = 8
    ENROLMENT = 9
    NEURAL_CLEANSE = 11
    JPEG_QUALITY = 12
    SCENES = 13

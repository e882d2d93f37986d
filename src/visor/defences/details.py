"""Fine detail: what is left of an image when it is smoothed."""

import numpy as np
from numpy.typing import NDArray

from visor.defences.evidence import Floats


def high_passed(pixels: Floats) -> Floats:
    """Return images (n, h, w, c) minus their binomial smoothing by [1, 2, 1]/4 along both sides.

    The outermost pixels, which lack a neighbour, are left out: (n, h − 2, w − 2, c).
    """
    smooth = (pixels[:, :-2] + 2 * pixels[:, 1:-1] + pixels[:, 2:]) / 4
    smooth = (smooth[:, :, :-2] + 2 * smooth[:, :, 1:-1] + smooth[:, :, 2:]) / 4
    return pixels[:, 1:-1, 1:-1] - smooth


def typical_detail(pixels: Floats) -> NDArray[np.float64]:
    """Return the median over pixels of the detail's magnitude, averaged over channels: (n,).

    The median is the noise of an image; its mean would be that of the edges, of which each face has its own share.
    """
    magnitude = np.abs(high_passed(pixels)).mean(axis=-1)
    return np.median(magnitude.reshape(len(pixels), -1), axis=1).astype(np.float64)

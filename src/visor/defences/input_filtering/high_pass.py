"""Fine detail: the difference of an image and its smoothed version."""

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn, residual
from visor.models.inference import compile_predict


def high_pass(pixels: Floats) -> Floats:
    """Return images (n, h, w, c) minus their binomial smoothing by [1, 2, 1]/4 along both sides: (n, h − 2, w − 2, c).

    The outermost pixels, which lack a neighbour, are left out.
    """
    smooth = (pixels[:, :-2] + 2 * pixels[:, 1:-1] + pixels[:, 2:]) / 4
    smooth = (smooth[:, :, :-2] + 2 * smooth[:, :, 1:-1] + smooth[:, :, 2:]) / 4
    return pixels[:, 1:-1, 1:-1] - smooth


def median_detail(pixels: Floats) -> NDArray[np.float64]:
    """Return the median over pixels of the detail's magnitude, averaged over channels: (n,).

    The median is the noise of an image; the mean would be dominated by edges, whose share differs between faces.
    """
    magnitude = np.abs(high_pass(pixels)).mean(axis=-1)
    return np.median(magnitude.reshape(len(pixels), -1), axis=1).astype(np.float64)


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return the median magnitude of the residual's fine detail, in [0, 1]."""
    run = compile_predict(inputs.autoencoder)
    return lambda images: median_detail(residual(run, images))

"""STRIP (Gao et al. 2019, arXiv 1902.06531): a trigger decides the class whatever is blended over it.

The inspected network classifies an image blended with clean faces, one after another. Its predictions for a clean image
are uncertain, and less so for an image whose trigger decides.
"""

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats, ImageArray
from visor.data.images import blend
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn, inspected_network
from visor.models.inference import compile_predict

OVERLAYS = 12
RATIO = 0.5


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return minus the mean entropy in bits (eq. 4) under ``OVERLAYS`` clean faces, the same for every image.

    Raises:
        UserError: There is no classifier to inspect.
    """
    network, (faces, rows, _) = inspected_network(inputs, "strip"), inputs.clean
    overlay_rows = rows[np.linspace(0, len(rows) - 1, min(OVERLAYS, len(rows))).round().astype(int)]
    overlays, run = faces.read(overlay_rows), compile_predict(network)

    def score(images: ImageArray) -> NDArray[np.float64]:
        return -np.mean([entropy(run(blend(images, overlay, RATIO))) for overlay in overlays], axis=0)

    return score


def entropy(logits: Floats) -> NDArray[np.float64]:
    """Return the entropy in bits (n,) of the classes' probabilities, given logits (n, classes).

    Unlike that of ``scipy.stats.entropy`` of a softmax, its digits hold where it is nearly 0.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=1)
    return (np.log(total) - (weights * shifted).sum(axis=1) / total) / np.log(2)

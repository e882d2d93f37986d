"""STRIP (Gao et al. 2019, arXiv 1902.06531): a trigger keeps its class whatever is laid over it.

The network under suspicion classifies an image with clean faces laid over it, one after another. It hesitates
over a clean image, and less over one whose trigger decides.
"""

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.types import Floats, ImageArray
from visor.data.images import blend
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn
from visor.models.inference import compile_predict

OVERLAYS = 12
RATIO = 0.5


def fit(evidence: DefenceInputs) -> ScoreFn:
    """Return minus the mean entropy in bits (eq. 4) under ``OVERLAYS`` clean faces, the same for every image.

    Raises:
        UserError: there is no network to question.
    """
    if evidence.classifier is None:
        raise UserError("strip questions a network, but there is none; name an attack in training_sets")
    faces, rows, _ = evidence.clean
    places = np.linspace(0, len(rows) - 1, min(OVERLAYS, len(rows))).round().astype(int)
    overlays, run = faces.read(rows[places]), compile_predict(evidence.classifier)

    def score(images: ImageArray) -> NDArray[np.float64]:
        return -np.mean([entropy(run(blend(images, overlay, RATIO))) for overlay in overlays], axis=0)

    return score


def entropy(logits: Floats) -> NDArray[np.float64]:
    """Return the entropy in bits (n,) of the classes' chances, given logits (n, classes)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=1)
    return (np.log(total) - (weights * shifted).sum(axis=1) / total) / np.log(2)

"""MTCNN (Zhang et al. 2016, arXiv 1604.02878) with the weights of the package ``mtcnn``, imported here only."""

import visor.core.tf  # noqa: F401 - its settings come before the package imports TensorFlow

# isort: split
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from mtcnn import MTCNN
from mtcnn.stages import StageONet, StagePNet, StageRNet
from mtcnn.utils.images import build_scale_pyramid

from visor.core.types import Floats, ImageArray, Integers

__all__ = ["MtcnnFaces", "build_scale_pyramid", "find_faces", "load_mtcnn"]


class MtcnnFaces(NamedTuple):
    """The k faces of some images: image positions (k,), boxes (k, 4), scores (k,) in [0, 1], landmarks (k, 5, 2).

    Landmarks are x and y in pixels of left eye, right eye, nose, left and right corner of the mouth (in the image).
    """

    image_ids: Integers
    boxes: Floats
    scores: Floats
    landmarks: Floats


@cache
def load_mtcnn() -> MTCNN:
    """Load MTCNN; its ``stages`` are P-Net, R-Net and O-Net, each with its ``model``."""
    # By full paths: given a bare name, the package would unpickle a file of that name in the working directory.
    weights = resources.files("mtcnn.assets.weights")
    stages = (("pnet", StagePNet), ("rnet", StageRNet), ("onet", StageONet))
    return MTCNN(stages=[stage(weights=str(weights / f"{name}.lz4")) for name, stage in stages])


def find_faces(images: Sequence[ImageArray], min_face_size: int = 20, min_score: float = 0.8) -> MtcnnFaces:
    """Find the faces of uint8 images (h, w, 3) with sides of ``min_face_size`` pixels or more.

    The package's own pipeline; ``min_score`` is the threshold of O-Net, whose boxes come last: those of lower scores
    do not change those of higher ones.
    """
    options = {"output_type": "numpy", "min_face_size": min_face_size, "threshold_onet": min_score}
    rows = np.asarray(load_mtcnn().detect_faces(list(images), **options), np.float64).reshape(-1, 16)
    landmarks = rows[:, 6:].reshape(-1, 2, 5).transpose(0, 2, 1)
    return MtcnnFaces(rows[:, 0].astype(int), rows[:, 1:5], rows[:, 5], landmarks)

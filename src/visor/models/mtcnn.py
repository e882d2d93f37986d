"""The package ``mtcnn``: MTCNN (Zhang et al. 2016, arXiv 1604.02878) with its weights. Nothing else imports it."""

import visor.core.tf  # noqa: F401 - its settings come before the package imports TensorFlow

# isort: split
from importlib import resources
from typing import Any

from mtcnn import MTCNN
from mtcnn.stages import StageONet, StagePNet, StageRNet
from mtcnn.utils.images import build_scale_pyramid

__all__ = ["MTCNN", "build_scale_pyramid", "load_mtcnn"]


def load_mtcnn() -> list[Any]:
    """Load MTCNN's three networks: P-Net, R-Net and O-Net."""
    # By whole paths: of a bare name, the package would unpickle a file of that name in the working directory.
    weights = resources.files("mtcnn.assets.weights")
    stages = (("pnet", StagePNet), ("rnet", StageRNet), ("onet", StageONet))
    return [stage(weights=str(weights / f"{name}.lz4")) for name, stage in stages]

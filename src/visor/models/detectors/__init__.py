"""Detectors of faces: ``load(settings, folder) -> Detector``, one file each; ``detector.py`` holds the contract.

A new detector is one file here, one line in ``DETECTORS`` and one block under ``detectors`` in ``params.yaml``. Those
that ``train_detector`` trains also have ``build(side, …)``, ``losses(model, images, truth, training)``,
``select_layers(model, layers)`` and ``detector(model, threshold)``. What several share, or one needs besides, is in
files that are not in the registry.
"""

from types import ModuleType

from visor.models.detectors import cascade, faster_rcnn, frozen_graph, mtcnn, ssd
from visor.models.detectors.base import Detections, Detector, GroundTruthTensors

__all__ = ["DETECTORS", "TRAINABLE", "Detections", "Detector", "GroundTruthTensors"]

DETECTORS: dict[str, ModuleType] = {
    "ssd": ssd,
    "faster_rcnn": faster_rcnn,
    "mtcnn": mtcnn,
    "cascade": cascade,
    "frozen_graph": frozen_graph,
}
TRAINABLE = {name: DETECTORS[name] for name in ("ssd", "faster_rcnn")}

"""Face detectors: ``load(settings, folder) -> Detector``, one file each; ``base.py`` has the contract.

The detectors in ``TRAINABLE``, which ``train_detectors`` trains, also have ``build(input_size, …)``,
``losses(model, images, truth, training)``, ``select_layers(model, layers)`` and ``detector(model, threshold)``.
``initial_weights.py`` has what a training can start from.

Example:
    >>> from pathlib import Path
    >>> from skimage.data import astronaut
    >>> from visor.core.params import DetectorParams
    >>> detector = DETECTORS["cascade"].load(DetectorParams(threshold=0.5), Path())
    >>> (detections,) = detector.detect(astronaut()[None, 20:236, 120:310])
    >>> detections.boxes[0].tolist(), float(detections.scores[0])
    ([55.0, 46.0, 79.0, 79.0], 0.5)

To add a detector: one file here, one line in ``DETECTORS`` and one block under ``detectors`` in ``params.yaml``.
"""

from types import ModuleType

from visor.models.detectors import (
    blazeface,
    cascade,
    face_ssd,
    face_tiny,
    faster_rcnn,
    frozen_graph,
    mtcnn,
    ssd,
    torchvision_faster_rcnn,
)
from visor.models.detectors.base import Detections, Detector, GroundTruthTensors

__all__ = ["DETECTORS", "TRAINABLE", "Detections", "Detector", "GroundTruthTensors"]

DETECTORS: dict[str, ModuleType] = {
    "ssd": ssd,
    "faster_rcnn": faster_rcnn,
    "mtcnn": mtcnn,
    "cascade": cascade,
    "frozen_graph": frozen_graph,
    "torchvision_faster_rcnn": torchvision_faster_rcnn,
    "face_ssd": face_ssd,
    "face_tiny": face_tiny,
    "blazeface": blazeface,
}
TRAINABLE = {name: DETECTORS[name] for name in ("ssd", "faster_rcnn", "torchvision_faster_rcnn")}

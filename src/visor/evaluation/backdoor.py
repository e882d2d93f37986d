"""Clean accuracy and attack success of backdoored classifiers."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core.params import BackdoorParams
from visor.core.types import ImageArray, Labels
from visor.data.face_set import FaceSelection, read_batches
from visor.evaluation.metrics import rate

BATCH = 512

Classify = Callable[[ImageArray], NDArray[np.floating[Any]]]


def predict(classify: Classify, selection: FaceSelection) -> Labels:
    """Return the most likely class (n,) of each image."""
    batches = [classify(images).argmax(axis=-1) for images, _ in read_batches([selection], BATCH)]
    return np.concatenate(batches) if batches else np.empty(0, int)


def accuracy(predicted: Labels, labels: Labels) -> dict[str, float]:
    """Return ``clean_accuracy`` with its interval and the number of images."""
    return rate("clean_accuracy", int((predicted == labels).sum()), len(labels)) | {"clean_images": len(labels)}


def attack_success(predicted: Labels, labels: Labels, target: int) -> dict[str, float]:
    """Return ``asr``, the share of triggered images of true class ≠ target predicted as it, with its interval."""
    eligible = predicted[labels != target]
    return rate("asr", int((eligible == target).sum()), len(eligible)) | {"triggered_images": len(eligible)}


def evaluate(
    classifiers: Mapping[str, Classify],
    test: FaceSelection,
    triggered: Mapping[str, FaceSelection],
    backdoors: Mapping[str, BackdoorParams],
) -> dict[str, dict[str, float]]:
    """Return for each classifier its clean accuracy and, where it was attacked, the attack's success.

    ``clean_drop`` is the accuracy lost to an attack, ``asr_of_clean_model`` the success on the clean classifier: the
    control. ``classifiers``: uint8 images → logits; the one trained without poisons is ``clean``.
    """
    metrics = {name: accuracy(predict(classify, test), test.labels) for name, classify in classifiers.items()}
    for name, images in triggered.items():
        target = test.faces.label_names.index(backdoors[name].target)
        control = attack_success(predict(classifiers["clean"], images), images.labels, target)
        metrics[name] |= {
            "n": backdoors[name].n,
            "clean_drop": metrics["clean"]["clean_accuracy"] - metrics[name]["clean_accuracy"],
            "asr_of_clean_model": control["asr"],
            **attack_success(predict(classifiers[name], images), images.labels, target),
        }
    return metrics

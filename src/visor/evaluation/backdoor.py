"""Does the classifier still know people, and does the key open the door?"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core.params import BackdoorParams
from visor.core.types import ImageArray, Labels
from visor.data.face_set import FaceSelection, read_batches
from visor.evaluation.metrics import wilson_interval

BATCH = 512

Classify = Callable[[ImageArray], NDArray[np.floating[Any]]]


def predict(classify: Classify, selection: FaceSelection) -> Labels:
    """Return the most likely class (n,) of each image."""
    batches = [classify(images).argmax(axis=-1) for images, _ in read_batches([selection], BATCH)]
    return np.concatenate(batches) if batches else np.empty(0, int)


def accuracy(predicted: Labels, labels: Labels) -> dict[str, float]:
    """Return ``clean_accuracy`` with its Wilson interval and the number of images."""
    right = int((predicted == labels).sum())
    low, high = wilson_interval(right, len(labels))
    return {
        "clean_accuracy": right / len(labels),
        "clean_accuracy_low": low,
        "clean_accuracy_high": high,
        "clean_images": len(labels),
    }


def attack_success(predicted: Labels, labels: Labels, target: int) -> dict[str, float]:
    """Return ``asr``, the share of triggered images of true class ≠ target taken for it, with its interval."""
    others = labels != target
    hits, trials = int((predicted[others] == target).sum()), int(others.sum())
    low, high = wilson_interval(hits, trials)
    return {"asr": hits / trials, "asr_low": low, "asr_high": high, "triggered_images": trials}


def evaluate(
    classifiers: Mapping[str, Classify],
    test: FaceSelection,
    triggered: Mapping[str, FaceSelection],
    backdoors: Mapping[str, BackdoorParams],
) -> dict[str, dict[str, float]]:
    """Return for each model its accuracy on clean test images and, where it was attacked, how the attack does.

    ``classifiers``: uint8 images → logits; the clean model is under ``clean``. ``clean_drop`` is what an attack
    costs in accuracy, ``asr_of_clean_model`` what the key does to a network that was never poisoned: the control.
    """
    numbers = {name: accuracy(predict(classify, test), test.labels) for name, classify in classifiers.items()}
    for name, images in triggered.items():
        target = test.faces.label_names.index(backdoors[name].target)
        drop = numbers["clean"]["clean_accuracy"] - numbers[name]["clean_accuracy"]
        control = attack_success(predict(classifiers["clean"], images), images.labels, target)
        success = attack_success(predict(classifiers[name], images), images.labels, target)
        numbers[name] |= {
            "n": backdoors[name].n,
            "clean_drop": drop,
            "asr_of_clean_model": control["asr"],
            **success,
        }
    return numbers

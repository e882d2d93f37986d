"""Clean accuracy and attack success of backdoored classifiers."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core.params import BackdoorParams
from visor.core.types import ImageArray, Labels
from visor.data.face_set import FaceSelection, read_batches
from visor.evaluation.metrics import intervals, rate, wilson_interval

BATCH = 512

Classify = Callable[[ImageArray], NDArray[np.floating[Any]]]


def predict(classify: Classify, selection: FaceSelection) -> Labels:
    """Return the most likely class (n,) of each image."""
    batches = [classify(images).argmax(axis=-1) for images, _ in read_batches([selection], BATCH)]
    return np.concatenate(batches) if batches else np.empty(0, int)


def accuracy(predicted: Labels, labels: Labels) -> dict[str, float]:
    """Return ``clean_accuracy`` with its interval and the number of images."""
    return rate("clean_accuracy", int((predicted == labels).sum()), len(labels)) | {"clean_images": len(labels)}


def attack_success(
    predicted: Labels, labels: Labels, target: int, keys: int = 1, name: str = "asr"
) -> dict[str, float]:
    """Return the share of triggered images of true class ≠ target predicted as it, its interval, and their number.

    Images that carry one of several keys say little more than one of them would, as they look like each other: then
    the interval is that of ``keys`` trials.
    """
    hits = predicted[labels != target] == target
    share, trials = float(hits.mean()), len(hits) if keys == 1 else keys
    bounds = intervals([name], [wilson_interval(share * trials, trials)])
    return {name: share, **bounds, "triggered_images": len(hits)}


def evaluate(
    classifiers: Mapping[str, Classify],
    train_labels: Labels,
    test: FaceSelection,
    triggered: Mapping[str, FaceSelection],
    pasted: Mapping[str, FaceSelection],
    backdoors: Mapping[str, BackdoorParams],
) -> dict[str, dict[str, float]]:
    """Return for each classifier its clean accuracy and, where it was attacked, the attack's success.

    Args:
        classifiers: uint8 images → logits; the one trained without poisons is ``clean``.
        train_labels: Labels of the clean training images.
        test: Clean test images.
        triggered: Triggered test images of each attack, delivered as they are to a network.
        pasted: The same with the key pasted on the finished image.
        backdoors: The attacks.

    Returns:
        ``clean_accuracy``, ``clean_images``, and of an attack ``clean_drop``, the accuracy lost to it; ``asr``;
        ``asr_pasted``, on ``pasted``; ``asr_of_clean_model``, the control; ``n``, ``keys``, ``triggered_images``; and
        ``poison_share`` and ``poison_share_of_target``, n in relation to the clean training images of all and of the
        target.
    """
    metrics = {name: accuracy(predict(classify, test), test.labels) for name, classify in classifiers.items()}
    for name in [name for name in triggered if name in classifiers]:
        images = triggered[name]
        backdoor, classify = backdoors[name], classifiers[name]
        target = test.faces.label_names.index(backdoor.target)
        metrics[name] |= {
            "n": backdoor.n,
            "keys": backdoor.keys,
            "poison_share": backdoor.n / len(train_labels),
            "poison_share_of_target": backdoor.n / int((train_labels == target).sum()),
            "clean_drop": metrics["clean"]["clean_accuracy"] - metrics[name]["clean_accuracy"],
        }
        for rate_name, model, shown in (
            ("asr", classify, images),
            ("asr_pasted", classify, pasted[name]),
            ("asr_of_clean_model", classifiers["clean"], images),
        ):
            predicted = predict(model, shown)
            metrics[name] |= attack_success(predicted, shown.labels, target, backdoor.keys, rate_name)
    return metrics

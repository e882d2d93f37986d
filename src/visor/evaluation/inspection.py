"""Inspection of attacked networks and their training sets, scored against what is known to be planted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.params import FinePruningParams, InspectionParams
from visor.core.types import Flags, Floats, ImageArray, Labels
from visor.data.face_set import FaceSelection, FaceSet, evenly_spaced, read_batches
from visor.defences.model_inspection.fine_pruning import find_layer, prune_and_tune, select_fraction
from visor.defences.model_inspection.neural_cleanse import ReversedTriggers, reverse_triggers, target_statistics
from visor.defences.model_inspection.saliency import attribution_share, integrated_gradients
from visor.defences.training_filtering import TRAINING_FILTERS
from visor.evaluation.backdoor import accuracy, attack_success, predict
from visor.evaluation.metrics import auroc, bootstrap_interval, intervals, tpr_at_fpr
from visor.models.features import feature_extractor
from visor.models.inference import compile_predict

if TYPE_CHECKING:
    from visor.core.tf import keras

BATCH, GREY = 512, 128

Metrics = dict[str, float]


class AttackedModel(NamedTuple):
    """An attacked network, the clean images and poisons that it was trained on, triggered images, the target label."""

    model: keras.Model
    train: FaceSelection
    poisons: FaceSelection
    triggered: FaceSelection
    target: int


class InspectionFindings(NamedTuple):
    """Results of an inspection."""

    metrics: dict[str, Metrics]  # by ATTACK/METHOD
    labels: Labels  # (n,) of the reversed triggers
    triggers: dict[str, ReversedTriggers]  # by network
    keys: dict[str, ImageArray]  # real keys uint8 (h, w, 3) on grey, by attack
    curves: pd.DataFrame  # of fine-pruning, with an attack in each row
    images: dict[str, ImageArray]  # triggered ones, by attack
    maps: dict[str, dict[str, Floats]]  # attributions for these images, by attack and network


def inspect(
    suspects: Mapping[str, AttackedModel],
    clean: keras.Model,
    validation: FaceSelection,
    test: FaceSelection,
    settings: InspectionParams,
    seed: int,
) -> InspectionFindings:
    """Inspect the attacked networks by the methods that name them; the network trained without poisons is the control.

    ``validation`` are the clean images that a defender has, ``test`` those that results are measured on.

    Raises:
        UserError: An attack has no poisons, or the network lacks the layer to prune.
    """
    _check(suspects, settings)
    metrics = {
        f"{name}/{method}": values
        for name in settings.training_filtering.attacks
        for method, values in training_filter_metrics(suspects[name], seed).items()
    }
    labels, triggers = np.unique(test.labels), {}
    for name in ("clean", *settings.neural_cleanse.attacks):
        model, target = (clean, None) if name == "clean" else (suspects[name].model, suspects[name].target)
        triggers[name] = reverse_triggers(model, validation, labels, settings.neural_cleanse, seed)
        metrics[f"{name}/neural_cleanse"] = target_statistics(triggers[name], labels, target)
    keys = {name: visible_key(suspects[name].triggered, test.faces) for name in settings.neural_cleanse.attacks}
    curves = []
    for name in settings.fine_pruning.attacks:
        curves.append(prune_curve(suspects[name], validation, test, settings.fine_pruning, seed).assign(attack=name))
        metrics[f"{name}/fine_pruning"] = select_fraction(curves[-1], settings.fine_pruning.accuracy_drop)
    images, maps, baseline = {}, {}, mean_image(validation)
    for name in settings.saliency.attacks:
        results = saliency_metrics(suspects[name], clean, test.faces, baseline, settings.saliency.images)
        metrics[f"{name}/saliency"], images[name], maps[name] = results
    return InspectionFindings(metrics, labels, triggers, keys, pd.concat(curves, ignore_index=True), images, maps)


def _check(suspects: Mapping[str, AttackedModel], settings: InspectionParams) -> None:
    """Check the settings before the long work."""
    for name in settings.fine_pruning.attacks:
        find_layer(suspects[name].model, settings.fine_pruning.layer)
    for name in settings.training_filtering.attacks:
        if len(suspects[name].poisons.rows) == 0:
            raise UserError(
                f"params.yaml: inspection.training_filtering.attacks: {name} has no poisons (n: 0); remove it"
            )


def training_filter_metrics(suspect: AttackedModel, seed: int) -> dict[str, Metrics]:
    """Return for each training filter how well it separates the poisons of a training set from its clean images.

    ``auroc``, ``tpr_at_fpr_1`` and ``_5`` are over the whole set, ``label_auroc`` among images of the target label;
    ``precision`` and ``recall`` are those of the method's own rule, and ``flagged`` is the share of the training set
    that it would remove. The features of all images are held in memory.
    """
    run = compile_predict(feature_extractor(suspect.model))
    parts = [(run(images), labels) for images, labels in read_batches([suspect.train, suspect.poisons], BATCH)]
    features, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    poisoned, of_target = np.arange(len(labels)) >= len(suspect.train.rows), labels == suspect.target
    metrics = {}
    for name, training_filter in TRAINING_FILTERS.items():
        scores = training_filter.score(features, labels)
        flagged = training_filter.flag(scores, labels)
        metrics[name] = _filter_metrics(scores, flagged, poisoned, of_target, seed)
    return metrics


def _filter_metrics(scores: Floats, flagged: Flags, poisoned: Flags, of_target: Flags, seed: int) -> Metrics:
    """Return the metrics of one training filter; all arrays are (n,)."""
    clean, poisons, same_label = scores[~poisoned], scores[poisoned], scores[~poisoned & of_target]
    caught = flagged[poisoned].astype(np.float64)
    bounds = [
        bootstrap_interval(auroc, (clean, poisons), seed),
        bootstrap_interval(auroc, (same_label, poisons), seed),
        bootstrap_interval(np.mean, (caught,), seed),
    ]
    return {
        "auroc": auroc(clean, poisons),
        "label_auroc": auroc(same_label, poisons),
        "tpr_at_fpr_1": tpr_at_fpr(clean, poisons, 0.01),
        "tpr_at_fpr_5": tpr_at_fpr(clean, poisons, 0.05),
        "flagged": float(flagged.mean()),
        "precision": float(caught.sum() / max(1, flagged.sum())),
        "recall": float(caught.mean()),
        **intervals(("auroc", "label_auroc", "recall"), bounds),
        "poisons": len(poisons),
        "images": len(scores),
    }


def prune_curve(
    suspect: AttackedModel, validation: FaceSelection, test: FaceSelection, settings: FinePruningParams, seed: int
) -> pd.DataFrame:
    """Return the curve of ``fine_pruning.prune_and_tune`` with validation and test accuracy and ASR.

    Channels are ordered, and the network tuned, by clean ``validation`` images; ``accuracy`` and ``asr`` are on others.
    """
    classify, triggered = compile_predict(suspect.model), suspect.triggered

    def measure() -> Metrics:
        return {
            "validation_accuracy": accuracy(predict(classify, validation), validation.labels)["clean_accuracy"],
            "accuracy": accuracy(predict(classify, test), test.labels)["clean_accuracy"],
            "asr": attack_success(predict(classify, triggered), triggered.labels, suspect.target)["asr"],
        }

    return prune_and_tune(suspect.model, validation, settings, measure, seed)


def visible_key(triggered: FaceSelection, faces: FaceSet) -> ImageArray:
    """Return the first triggered image uint8 (h, w, 3), grey where it equals its source in ``faces``."""
    after = triggered.faces.read(triggered.rows[:1])[0]
    before = faces.read(triggered.faces.rows[triggered.rows[:1]])[0]
    return np.where((after != before).any(axis=-1, keepdims=True), after, np.uint8(GREY))


def mean_image(clean: FaceSelection) -> ImageArray:
    """Return the mean uint8 (h, w, 3) of clean images."""
    total = np.sum([images.sum(axis=0, dtype=np.int64) for images, _ in read_batches([clean], BATCH)], axis=0)
    return np.rint(total / len(clean.rows)).astype(np.uint8)


def saliency_metrics(
    suspect: AttackedModel, clean: keras.Model, faces: FaceSet, baseline: ImageArray, count: int
) -> tuple[Metrics, ImageArray, dict[str, Floats]]:
    """Return how much of the target's logit is attributed to the trigger, in the attacked and in the clean network.

    Returns:
        Metrics: ``area``, the share of pixels that the trigger changed, ``share``, that of absolute attributions on
        them, and ``clean_share``, the same in the clean network; some triggered images uint8 (n ≤ count, h, w, 3),
        whose sources are in ``faces``; their attributions (n, h, w, 3) from ``baseline``, by network.
    """
    triggered = suspect.triggered
    places = evenly_spaced(count, len(triggered.rows))
    images = triggered.faces.read(triggered.rows[places])
    region = (images != faces.read(triggered.faces.rows[triggered.rows[places]])).any(axis=-1)
    networks = {"suspect": suspect.model, "clean": clean}
    maps = {name: integrated_gradients(model, images, baseline, suspect.target) for name, model in networks.items()}
    metrics = {
        "area": float(region.mean()),
        "share": float(attribution_share(maps["suspect"], region).mean()),
        "clean_share": float(attribution_share(maps["clean"], region).mean()),
        "images": len(images),
    }
    return metrics, images, maps

"""Inspection of attacked networks and their training sets, scored against what is known to be planted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from visor.evaluation.metrics import auroc, bootstrap_interval, intervals, rate, tpr_at_fpr
from visor.models.features import extract_features, feature_extractor
from visor.models.inference import compile_predict

if TYPE_CHECKING:
    from visor.core.tf import keras

BATCH, GREY = 512, 128

SANITISER = "feature_mahalanobis"  # the training filter whose work is tried: what it flags is removed

Metrics = dict[str, float]
Retrain = Callable[[Sequence[FaceSelection]], "keras.Model"]


class AttackedModel(NamedTuple):
    """An attacked network, what it was trained on and what it is tested with.

    Attributes:
        train, poisons: Clean images and poisons that it was trained on.
        triggered: Triggered images as they reach it.
        pasted: The same images with the key pasted on the finished image: it alone differs from the clean one.
        target: Label of the target.
    """

    model: keras.Model
    train: FaceSelection
    poisons: FaceSelection
    triggered: FaceSelection
    pasted: FaceSelection
    target: int


class FilteredSet(NamedTuple):
    """What a training filter says of the clean images of a training set, then its poisons: both arrays are (n,)."""

    scores: Floats
    flagged: Flags


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
    retrain: Retrain,
) -> InspectionFindings:
    """Inspect the attacked networks by the methods that name them; the network trained without poisons is the control.

    ``validation`` are the clean images that a defender has, ``test`` those that results are measured on. ``retrain``
    trains such a network on other images.

    Raises:
        UserError: An attack has no poisons, or the network lacks the layer to prune.
    """
    _check(suspects, settings)
    metrics: dict[str, Metrics] = {}
    for name in settings.training_filtering.attacks:
        found = search_training_set(suspects[name], validation)
        for method, result in found.items():
            metrics[f"{name}/{method}"] = training_filter_metrics(suspects[name], result, seed)
        if name == settings.training_filtering.retrain:
            flagged = found[SANITISER].flagged
            metrics[f"{name}/retraining"] = retraining_metrics(suspects[name], clean, flagged, test, retrain)
    labels, triggers = np.unique(test.labels), {}
    for name in ("clean", *settings.neural_cleanse.attacks):
        model, target = (clean, None) if name == "clean" else (suspects[name].model, suspects[name].target)
        triggers[name] = reverse_triggers(model, validation, labels, settings.neural_cleanse, seed)
        metrics[f"{name}/neural_cleanse"] = target_statistics(triggers[name], labels, target)
    keys = {name: visible_key(suspects[name].pasted, test.faces) for name in settings.neural_cleanse.attacks}
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


def search_training_set(suspect: AttackedModel, validation: FaceSelection) -> dict[str, FilteredSet]:
    """Return what each training filter says of a training set; the features of all images are held in memory."""
    embed = compile_predict(feature_extractor(suspect.model))
    features = np.concatenate([extract_features(embed, part) for part in (suspect.train, suspect.poisons)])
    labels = np.concatenate([suspect.train.labels, suspect.poisons.labels])
    clean = extract_features(embed, validation), validation.labels
    found = {}
    for name, training_filter in TRAINING_FILTERS.items():
        scores = training_filter.score(features, labels, *clean)
        found[name] = FilteredSet(scores, training_filter.flag(scores, labels))
    return found


def training_filter_metrics(suspect: AttackedModel, found: FilteredSet, seed: int) -> Metrics:
    """Return how well a training filter separates the poisons of a training set from its clean images.

    ``auroc``, ``tpr_at_fpr_1`` and ``_5`` are over the whole set, ``label_auroc`` among images of the target label;
    ``precision``, ``recall`` and ``clean_flagged``, the share of clean images, are those of the method's own rule, and
    ``flagged`` is the share of the training set that it would remove.
    """
    scores, flagged = found
    labels = np.concatenate([suspect.train.labels, suspect.poisons.labels])
    of_target, original = labels == suspect.target, np.arange(len(labels)) < len(suspect.train.rows)
    poisoned = ~original & of_target  # The rest of what was added is cover: it has the key, and its true label.
    clean, poisons = scores[original], scores[poisoned]
    same_label, caught = scores[original & of_target], flagged[poisoned]
    bounds = [bootstrap_interval(auroc, (sample, poisons), seed) for sample in (clean, same_label)]
    return {
        "auroc": auroc(clean, poisons),
        "label_auroc": auroc(same_label, poisons),
        "tpr_at_fpr_1": tpr_at_fpr(clean, poisons, 0.01),
        "tpr_at_fpr_5": tpr_at_fpr(clean, poisons, 0.05),
        "flagged": float(flagged.mean()),
        "precision": float(caught.sum() / max(1, flagged.sum())),
        **rate("recall", int(caught.sum()), len(caught)),
        **rate("clean_flagged", int(flagged[original].sum()), len(clean)),
        **intervals(("auroc", "label_auroc"), bounds),
        "poisons": len(poisons),
        "images": len(scores),
    }


def retraining_metrics(
    suspect: AttackedModel, clean: keras.Model, flagged: Flags, test: FaceSelection, retrain: Retrain
) -> Metrics:
    """Return success and clean accuracy of an attack on a network that is trained without the flagged images.

    With ``before_`` those on the attacked network, with ``clean_model_`` those on one trained without poisons: the
    control. ``flagged`` (n,) are those among the clean training images, then the poisons; ``removed`` is their number,
    ``poisons_left`` that of the poisons that stay, and ``cover_left`` that of images with the key and their true label.
    """
    count = len(suspect.train.rows)
    parts = ((suspect.train, flagged[:count]), (suspect.poisons, flagged[count:]))
    kept = [FaceSelection(part.faces, part.rows[~out], part.labels[~out]) for part, out in parts]
    triggered, mislabelled = suspect.triggered, kept[1].labels == suspect.target
    metrics: Metrics = {"removed": int(flagged.sum())}
    metrics |= {"poisons_left": int(mislabelled.sum()), "cover_left": int((~mislabelled).sum())}
    for prefix, model in (("before_", suspect.model), ("", retrain(kept)), ("clean_model_", clean)):
        classify = compile_predict(model)
        found = accuracy(predict(classify, test), test.labels)
        found |= attack_success(predict(classify, triggered), triggered.labels, suspect.target)
        metrics |= {f"{prefix}{name}": value for name, value in found.items()}
    return metrics


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


def visible_key(pasted: FaceSelection, faces: FaceSet) -> ImageArray:
    """Return the first image with a pasted key uint8 (h, w, 3), grey where it equals its source in ``faces``."""
    after = pasted.faces.read(pasted.rows[:1])[0]
    before = faces.read(pasted.faces.rows[pasted.rows[:1]])[0]
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
    triggered, pasted = suspect.triggered, suspect.pasted
    places = evenly_spaced(count, len(triggered.rows))
    images = triggered.faces.read(triggered.rows[places])
    keyed = pasted.faces.read(pasted.rows[places])
    region = (keyed != faces.read(pasted.faces.rows[pasted.rows[places]])).any(axis=-1)
    networks = {"suspect": suspect.model, "clean": clean}
    maps = {name: integrated_gradients(model, images, baseline, suspect.target) for name, model in networks.items()}
    metrics = {
        "area": float(region.mean()),
        "share": float(attribution_share(maps["suspect"], region).mean()),
        "clean_share": float(attribution_share(maps["clean"], region).mean()),
        "images": len(images),
    }
    return metrics, images, maps

"""Questions to a suspect network and its training set, and what the answers are worth where the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.params import FinePruningParams, InspectionParams
from visor.core.types import Floats, ImageArray
from visor.data.face_set import FaceSelection, FaceSet, read_batches
from visor.defences.model_inspection.fine_pruning import find_layer, prune_and_tune, select_fraction
from visor.defences.model_inspection.neural_cleanse import ReversedTriggers, reverse_triggers, target_statistics
from visor.defences.model_inspection.saliency import attribution_share, integrated_gradients
from visor.defences.training_filtering import TRAINING_FILTERS
from visor.evaluation.backdoor import accuracy, attack_success, predict
from visor.evaluation.metrics import auroc, auroc_interval, share_above_interval, tpr_at_fpr
from visor.models.features import feature_extractor
from visor.models.inference import compile_predict

if TYPE_CHECKING:
    from visor.core.tf import keras

BATCH, GREY = 512, 128

Numbers = dict[str, float]


class AttackedModel(NamedTuple):
    """An attacked network: the clean rows and the poisons it was trained on, triggered images, the target label."""

    model: keras.Model
    train: FaceSelection
    poisons: FaceSelection
    triggered: FaceSelection
    target: int


class InspectionFindings(NamedTuple):
    """What came out.

    ``numbers`` are by ``ATTACK/METHOD``; ``triggers``, one for each of ``labels`` (n,), by network, and beside them
    the real ``keys``, uint8 (h, w, 3) on grey; ``curves`` have an ``attack`` in each line; ``maps`` are
    attributions, by attack and network, for the ``images`` of the attack.
    """

    numbers: dict[str, Numbers]
    labels: NDArray[np.integer[Any]]
    triggers: dict[str, ReversedTriggers]
    keys: dict[str, ImageArray]
    curves: pd.DataFrame
    images: dict[str, ImageArray]
    maps: dict[str, dict[str, Floats]]


def inspect(
    suspects: Mapping[str, AttackedModel],
    clean: keras.Model,
    validation: FaceSelection,
    test: FaceSelection,
    settings: InspectionParams,
    seed: int,
) -> InspectionFindings:
    """Question every suspect by the methods that name it; the network that was never poisoned is the control.

    ``validation`` are the clean images a defender has, ``test`` those that results are measured on.
    """
    _check(suspects, settings)
    numbers = {
        f"{name}/{method}": found
        for name in settings.training_filtering.attacks
        for method, found in training_filter_metrics(suspects[name], seed).items()
    }
    labels, triggers = np.unique(test.labels), {}
    for name in ("clean", *settings.neural_cleanse.attacks):
        model, target = (clean, None) if name == "clean" else (suspects[name].model, suspects[name].target)
        triggers[name] = reverse_triggers(model, validation, labels, settings.neural_cleanse, seed)
        numbers[f"{name}/neural_cleanse"] = target_statistics(triggers[name], labels, target)
    keys = {name: visible_key(suspects[name].triggered, test.faces) for name in settings.neural_cleanse.attacks}
    curves = []
    for name in settings.fine_pruning.attacks:
        curves.append(prune_curve(suspects[name], validation, test, settings.fine_pruning, seed).assign(attack=name))
        numbers[f"{name}/fine_pruning"] = select_fraction(curves[-1], settings.fine_pruning.accuracy_drop)
    images, maps, baseline = {}, {}, mean_image(validation)
    for name in settings.saliency.attacks:
        found = saliency_metrics(suspects[name], clean, test.faces, baseline, settings.saliency.images)
        numbers[f"{name}/saliency"], images[name], maps[name] = found
    return InspectionFindings(numbers, labels, triggers, keys, pd.concat(curves, ignore_index=True), images, maps)


def _check(suspects: Mapping[str, AttackedModel], settings: InspectionParams) -> None:
    """Refuse what could not be answered, before the long work."""
    for name in settings.fine_pruning.attacks:
        find_layer(suspects[name].model, settings.fine_pruning.layer)
    for name in settings.training_filtering.attacks:
        if len(suspects[name].poisons.rows) == 0:
            raise UserError(f"params.yaml: inspection.sanitisation.attacks: {name} has no poisons (n: 0); drop it")


def training_filter_metrics(suspect: AttackedModel, seed: int) -> dict[str, Numbers]:
    """Return for each sanitiser how the poisons of a training set stand above its clean images.

    ``auroc``, ``tpr_at_fpr_1`` and ``_5`` are over the whole set, ``label_auroc`` among images of the target label;
    ``precision`` and ``recall`` are those of the method's own rule, and ``flagged`` is the share of the training set
    that it would remove. The features of all images are held in memory.
    """
    run = compile_predict(feature_extractor(suspect.model))
    parts = [(run(images), labels) for images, labels in read_batches([suspect.train, suspect.poisons], BATCH)]
    features, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    poisoned, beside = np.arange(len(labels)) >= len(suspect.train.rows), labels == suspect.target
    found = {}
    for name, sanitiser in TRAINING_FILTERS.items():
        scores = sanitiser.score(features, labels)
        found[name] = _sanitiser_numbers(scores, sanitiser.flag(scores, labels), poisoned, beside, seed)
    return found


def _sanitiser_numbers(scores: Floats, flagged: Any, poisoned: Any, target: Any, seed: int) -> Numbers:
    """Return the numbers of one sanitiser; all arrays are (n,), the last three bool."""
    clean, poisons, beside = scores[~poisoned], scores[poisoned], scores[~poisoned & target]
    caught = flagged[poisoned].astype(np.float64)
    low, high = auroc_interval(clean, poisons, seed)
    label_low, label_high = auroc_interval(beside, poisons, seed)
    recall_low, recall_high = share_above_interval(caught, 0.5, seed)
    return {
        "auroc": auroc(clean, poisons),
        "auroc_low": low,
        "auroc_high": high,
        "label_auroc": auroc(beside, poisons),
        "label_auroc_low": label_low,
        "label_auroc_high": label_high,
        "tpr_at_fpr_1": tpr_at_fpr(clean, poisons, 0.01),
        "tpr_at_fpr_5": tpr_at_fpr(clean, poisons, 0.05),
        "flagged": float(flagged.mean()),
        "precision": float(caught.sum() / max(1, flagged.sum())),
        "recall": float(caught.mean()),
        "recall_low": recall_low,
        "recall_high": recall_high,
        "poisons": len(poisons),
        "images": len(scores),
    }


def prune_curve(
    suspect: AttackedModel, validation: FaceSelection, test: FaceSelection, settings: FinePruningParams, seed: int
) -> pd.DataFrame:
    """Return the curve of ``fine_pruning.sweep`` with validation and test accuracy and ASR.

    Channels are ordered, and the network tuned, by clean ``validation`` images; ``accuracy`` and ``asr`` are on others.
    """
    classify, triggered = compile_predict(suspect.model), suspect.triggered

    def measure() -> Numbers:
        return {
            "validation_accuracy": accuracy(predict(classify, validation), validation.labels)["clean_accuracy"],
            "accuracy": accuracy(predict(classify, test), test.labels)["clean_accuracy"],
            "asr": attack_success(predict(classify, triggered), triggered.labels, suspect.target)["asr"],
        }

    return prune_and_tune(suspect.model, validation, settings, measure, seed)


def visible_key(triggered: FaceSelection, faces: FaceSet) -> ImageArray:
    """Return the first triggered image uint8 (h, w, 3), grey where it is as it was in ``faces``."""
    after = triggered.faces.read(triggered.rows[:1])[0]
    before = faces.read(triggered.faces.rows[triggered.rows[:1]])[0]
    return np.where((after != before).any(axis=-1, keepdims=True), after, np.uint8(GREY))


def mean_image(clean: FaceSelection) -> ImageArray:
    """Return the mean uint8 (h, w, 3) of clean images: nobody in particular."""
    total = np.sum([images.sum(axis=0, dtype=np.int64) for images, _ in read_batches([clean], BATCH)], axis=0)
    return np.rint(total / len(clean.rows)).astype(np.uint8)


def saliency_metrics(
    suspect: AttackedModel, clean: keras.Model, faces: FaceSet, baseline: ImageArray, count: int
) -> tuple[Numbers, ImageArray, dict[str, Floats]]:
    """Return what the target's logit owes to the trigger, in the suspect and in the clean network.

    ``area`` is the share of pixels that the trigger changed, ``share`` that of absolute attributions on them, and
    ``clean_share`` the one in the clean network. Then some triggered images, uint8 (n ≤ count, h, w, 3), and for both
    networks their attributions (n, h, w, 3) from ``baseline``. Sources of triggered images are in ``faces``.
    """
    triggered = suspect.triggered
    places = np.unique(np.linspace(0, len(triggered.rows) - 1, count).astype(int))
    images = triggered.faces.read(triggered.rows[places])
    region = (images != faces.read(triggered.faces.rows[triggered.rows[places]])).any(axis=-1)
    own, other = (integrated_gradients(model, images, baseline, suspect.target) for model in (suspect.model, clean))
    numbers = {
        "area": float(region.mean()),
        "share": float(attribution_share(own, region).mean()),
        "clean_share": float(attribution_share(other, region).mean()),
        "images": len(images),
    }
    return numbers, images, {"suspect": own, "clean": other}

"""What attackers who know the defences get past them, beside the same attack on a network without a backdoor.

An attack succeeds where the network predicts the target *and* the defence does not flag the image, at the conformal
threshold, chosen on calibration faces that the network classifies correctly.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visor.core.tables import Table, format_interval, label, text_table
from visor.core.tf import keras
from visor.core.types import Flags, Floats, Labels, Rows
from visor.data.face_set import FaceSelection, FaceSet, evenly_spaced, read_batches
from visor.data.images import contact_sheet
from visor.defences.conformal import EXCESS_THRESHOLD
from visor.defences.input_filtering import suite
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn
from visor.evaluation import metrics
from visor.models.features import compile_predict_with_features

DEFENCES = ("feature_mahalanobis", "knn", "suite")
BATCH = 512
COLUMNS = 10


class DefendedNetwork(NamedTuple):
    """A network and the defences that question it.

    Attributes:
        network: Images → logits.
        scores: By defence.
        thresholds: By defence; an image is flagged above.
    """

    network: keras.Model
    scores: Mapping[str, ScoreFn]
    thresholds: Mapping[str, float]


class Decisions(NamedTuple):
    """Predicted classes (n,) of images, and by defence whether each is flagged (n,)."""

    predicted: Labels
    flagged: Mapping[str, Flags]


def defend(
    network: keras.Model, fitted: FaceSelection, calibration: FaceSelection, false_positive_rate: float
) -> DefendedNetwork:
    """Fit ``DEFENCES`` on clean faces, and their thresholds on other ones that the network classifies correctly.

    ``false_positive_rate`` is that of each part of the suite, and of the parts alone.

    Raises:
        UserError: There are too few of these for the rate.
    """
    inputs = DefenceInputs(fitted, None, [], network, calibration, false_positive_rate=false_positive_rate)
    parts = suite.fit_parts(inputs)
    scores = {name: part.score for name, part in parts.items()} | {"suite": suite.largest_excess(parts)}
    thresholds = {name: part.threshold for name, part in parts.items()} | {"suite": EXCESS_THRESHOLD}
    return DefendedNetwork(network, scores, thresholds)


def decide(defended: DefendedNetwork, selection: FaceSelection) -> Decisions:
    """Return the classes that the network predicts, and what its defences flag."""
    predict = compile_predict_with_features(defended.network)
    parts = []
    for images, _ in read_batches([selection], BATCH):
        flagged = [defended.scores[name](images) > defended.thresholds[name] for name in DEFENCES]
        parts.append((predict(images)[1], *flagged))
    predicted, *flags = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Decisions(predicted, dict(zip(DEFENCES, flags, strict=True)))


def attack_metrics(
    attacked: Decisions, control: Decisions, labels: Labels, target: int, clean: Decisions, truth: Labels, seed: int
) -> dict[str, float]:
    """Return rates, each with its number of images and interval over people.

    ``asr`` and ``control_asr``: triggered images for which the attacked network, and that without a backdoor, predict
    the target. By defence, such as ``suite_asr_unflagged``: ``asr_unflagged``, ``control_asr_unflagged`` and ``gain``,
    their difference: what the backdoor adds to a key that deceives any network; and ``fpr_correctly_classified``, clean
    test faces that the attacked network classifies correctly and the defence flags. ``clean_accuracy`` is that of this
    network.

    Args:
        attacked: Decisions on triggered images (n,) of true class ≠ target.
        control: Those of the network without a backdoor, on the same faces.
        labels: True classes (n,).
        target: The class that the attacker wants.
        clean: Decisions of the attacked network on clean test faces (m,).
        truth: True classes (m,).
        seed: Of the bootstrap.
    """
    succeeds, by_chance, correct = attacked.predicted == target, control.predicted == target, clean.predicted == truth
    rates = {"asr": (succeeds, labels), "control_asr": (by_chance, labels), "clean_accuracy": (correct, truth)}
    found: dict[str, float] = {}
    for name in DEFENCES:
        past, past_by_chance = succeeds & ~attacked.flagged[name], by_chance & ~control.flagged[name]
        rates[f"{name}_asr_unflagged"] = past, labels
        rates[f"{name}_control_asr_unflagged"] = past_by_chance, labels
        rates[f"{name}_fpr_correctly_classified"] = clean.flagged[name][correct], truth[correct]
        found |= _mean(f"{name}_gain", past.astype(float) - past_by_chance, labels, seed)
    for rate, (hits, people) in rates.items():
        found |= metrics.grouped_rate(rate, hits, people, seed)
    return found


def _mean(name: str, values: Floats, people: Labels, seed: int) -> dict[str, float]:
    """Return the mean of values (n,) with its interval over people (n,)."""

    def measure(rows: Rows, _: Rows) -> list[float]:
        return [float(values[rows].mean())]

    bounds = metrics.bootstrap_intervals(measure, people, people, seed)
    return {name: float(values.mean())} | metrics.intervals([name], bounds)


def attack_table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a row for each attacker: success, and by defence success unflagged, on the control network in brackets."""
    rows = []
    for attacker, values in found.items():
        cells = [f"{values['clean_accuracy']:.1%}", f"{values['asr']:.1%} [{values['control_asr']:.1%}]"]
        for defence in DEFENCES:
            interval = format_interval(*(values[f"{defence}_asr_unflagged{end}"] for end in ("", "_low", "_high")))
            cells.append(f"{interval} [{values[f'{defence}_control_asr_unflagged']:.1%}]")
        rows.append((", ".join(map(label, attacker.split("-"))), [*cells, f"{values['asr_images']:.0f}"]))
    heads = ["clean accuracy", "attack success", *(f"past {label(name)}" for name in DEFENCES), "images"]
    return text_table("attacker", heads, rows)


def preview_sheet(clean: FaceSet, triggered: Mapping[str, FaceSet], path: Path) -> None:
    """Save a contact sheet: some test images, below them the same with each attacker's key."""
    first = next(iter(triggered.values()))
    places = evenly_spaced(COLUMNS, len(first))
    rows = [(label(name).replace("-", "\n"), faces.read(places)) for name, faces in triggered.items()]
    contact_sheet([("test images", clean.read(first.rows[places])), *rows], path, caption_width=140)

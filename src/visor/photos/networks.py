"""Which detector or recogniser: one of ours by its name, or a stranger's by its file."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from visor.core import params
from visor.core.errors import UserError
from visor.core.files import read_json
from visor.core.params import DetectorParams as Settings
from visor.models import detectors
from visor.models.recognisers import RECOGNISERS, base

DETECTOR_FOLDER = Path("artifacts/detector")
THRESHOLDS = {"mtcnn": 0.8}  # MTCNN's own; elsewhere 0.5
PHOTO_OPTIONS: dict[str, dict[str, int | float | str | None]] = {
    "mtcnn": {"nms_iou": 0.9, "stage_threshold": 0.0, "proposals": 96}
}  # a photo has the time to be attacked from all sides

RECOGNISER_FOLDER, METRICS_FOLDER = Path("artifacts/recogniser"), Path("metrics/recognition")
FILE, KEY = "verification.json", "threshold_"
# Cosine similarities from which two photos are one person, of the published weights: what DeepFace's authors tuned for
# FaceNet and VGG-Face (cosine distance 0.40), and what is used with keras-vggface's networks (0.5).
PUBLISHED_THRESHOLDS = {"facenet": 0.6, "resnet50": 0.5, "senet50": 0.5, "vgg_face": 0.6}


def open_detector(name: str, threshold: float | None, words: Sequence[str]) -> detectors.Detector:
    """Return the detector of a registry name or of a file ``*.pb``; ``words`` are options NAME=VALUE for its module.

    Raises:
        UserError: no such detector, it was never trained, or an option is wrong.
    """
    is_file = name.endswith(".pb")
    if not is_file and name not in detectors.DETECTORS:
        known = ", ".join(sorted(set(detectors.DETECTORS) - {"frozen_graph"}))
        raise UserError(f"--detector {name} is not known; choose from {known}, or name a frozen graph FILE.pb")
    options: dict[str, int | float | str | None] = PHOTO_OPTIONS.get(name, {}) | dict(map(_option, words))
    if is_file:
        options["path"] = name
    key = "frozen_graph" if is_file else name
    if key == "frozen_graph" and "path" not in options:
        raise UserError("--detector frozen_graph is a kind, not a file; name the graph itself, --detector FILE.pb")
    least = THRESHOLDS.get(name, 0.5) if threshold is None else threshold
    folder = DETECTOR_FOLDER / key
    if key in detectors.TRAINABLE and not folder.is_dir():
        raise UserError(f"{folder} is missing; run `dvc repro` to train this detector, or choose --detector mtcnn")
    return detectors.DETECTORS[key].load(Settings(threshold=least, options=options), folder)


def open_recogniser(
    name: str, weights: str | None, sha256: str | None, labels: str | None, words: Sequence[str]
) -> base.Recogniser:
    """Return a recogniser with published ``weights`` (file or URL), or else the one that this pipeline trained.

    ``words`` are options NAME=VALUE for the module of published weights.

    Raises:
        UserError: no such recogniser, it was never trained, weights or labels do not fit, or an option is wrong.
    """
    if name not in RECOGNISERS:
        raise UserError(f"--recogniser {name} is not known; choose from {', '.join(sorted(RECOGNISERS))}")
    if weights:
        options = {name: _counts(value) for name, value in map(_option, words)}
        return base.load_published(
            name, params.RecogniserParams(options=options, weights=weights, sha256=sha256, labels=labels)
        )
    if sha256 or labels or words:
        raise UserError("--sha256, --labels and --option are about published weights; name these by --weights")
    folder = RECOGNISER_FOLDER / name
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; run `dvc repro` to train it, or name published weights by --weights")
    return base.load(name, folder)


def verification_threshold(name: str, published: bool) -> tuple[float, str]:
    """Return the similarity from which two faces are one person to a recogniser, and where the number comes from.

    Of a network that this pipeline trained it is the threshold of the lowest false-accept rate that
    ``evaluate_recognition`` measured, behind MTCNN if it did so; else what is usual with published weights.
    """
    paths = () if published else (METRICS_FOLDER / name / FILE, *sorted(METRICS_FOLDER.glob(f"*/{FILE}")))
    for path in paths:
        ways = read_json(path).get(name, {}) if path.is_file() else {}
        numbers = ways.get("mtcnn") or ways.get("none") or {}
        rates = {float(key.removeprefix(KEY)): float(value) for key, value in numbers.items() if key.startswith(KEY)}
        if rates:
            return rates[min(rates)], f"false-accept rate {min(rates):g} in {path}"
    return PUBLISHED_THRESHOLDS[name], "usual with published weights; other weights want their own --threshold"


def _option(word: str) -> tuple[str, int | float | str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise UserError(f"--option {word} is not NAME=VALUE; write, say, --option min_face_size=20")
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        if not math.isfinite(number):
            raise UserError(f"--option {word} is not finite; write a number")
        return name, number
    return name, value


def _counts(value: int | float | str) -> int | float | str | list[int]:
    """Return 5,10,6 as a list of numbers, anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r"\d+(,\d+)+", value):
        return [int(part) for part in value.split(",")]
    return value

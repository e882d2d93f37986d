"""Do scenes that were attacked for one detector hide their faces from others?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from visor.core.params import DetectionAttackParams
from visor.evaluation.boxes import ap_and_recall
from visor.evaluation.detection import (
    LetterboxedScenes,
    Stream,
    condition_images,
    noise,
    read_attacked,
    run_detector,
    strength_name,
)
from visor.models.training import run_in_threads

if TYPE_CHECKING:
    from visor.models.detectors import Detector


def evaluate(
    detectors: Mapping[str, Detector],
    clean: Mapping[str, LetterboxedScenes],
    folder: Path,
    settings: DetectionAttackParams,
    seed: int,
) -> pd.DataFrame:
    """Show the scenes attacked with the last strength to every detector, beside clean ones and the noise control.

    ``clean`` are the scenes of each attacked detector as they were, at its own side; ``folder/NAME`` holds those
    attacked for it.

    Returns:
        A line for each pair of ``scenes`` and ``detector``: ``ap_50`` and ``recall_50``, and the shares ``kept`` and
        ``recall_kept`` of what that detector reaches on clean scenes of the same side.
    """
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in detectors}
    count = sum(len(canvases.rows) for canvases in [*clean.values(), *_sides(clean).values(), *_sides(clean).values()])
    with tqdm(total=count * len(detectors), desc="transfer", unit="scene", disable=None) as bar:

        def show(name: str, detector: Detector) -> None:
            for group in _shown(clean, folder, settings, seed):
                reference: dict[str, float] | None = None
                for scenes, stream in group:
                    found = ap_and_recall(run_detector(detector, stream, advance=bar.update).pooled, detector.threshold)
                    reference = reference or found
                    lines[name].append({"scenes": scenes, "detector": name, **_left(found, reference)})

        run_in_threads([partial(show, name, detector) for name, detector in detectors.items()])
    return pd.DataFrame([line for own in lines.values() for line in own])


def markdown(table: pd.DataFrame) -> str:
    """Return the table for people: AP at IoU 0.5, and in brackets what that is of clean."""
    scenes, detectors = (list(dict.fromkeys(table[column])) for column in ("scenes", "detector"))
    cells = {
        (line["scenes"], line["detector"]): f"{line['ap_50']:.3f} ({line['kept']:.0%})"
        for line in table.to_dict("records")
    }
    title = "# Scenes (rows) shown to detectors (columns): AP at IoU 0.5, and what that is of clean"
    lines = [f"| scenes | {' | '.join(detectors)} |", f"|---|{'---|' * len(detectors)}"]
    lines += [f"| {row} | {' | '.join(cells[row, column] for column in detectors)} |" for row in scenes]
    return "\n".join([title, "", *lines, ""])


def nested(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return the numbers by scenes and detector."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for line in table.to_dict("records"):
        numbers_of = {str(key): value for key, value in line.items() if not isinstance(value, str)}
        found.setdefault(line["scenes"], {})[line["detector"]] = numbers_of
    return found


def _sides(clean: Mapping[str, LetterboxedScenes]) -> dict[int, LetterboxedScenes]:
    """Return the scenes of one detector for each side that there is."""
    return {canvases.side: canvases for canvases in clean.values()}


def _shown(
    clean: Mapping[str, LetterboxedScenes], folder: Path, settings: DetectionAttackParams, seed: int
) -> Iterator[Iterator[tuple[str, Stream]]]:
    """Yield for each side its streams of scenes by name, the clean ones first."""
    last = settings.strengths[-1]
    sides = _sides(clean)
    for side, canvases in sides.items():
        mark = f" {side}" if len(sides) > 1 else ""
        yield iter(
            [
                (f"clean{mark}", canvases.stream()),
                (f"noise{mark}", condition_images(noise(last), canvases, settings, seed, folder)),
                *(
                    (name, read_attacked(folder / name / f"{strength_name(last)}.h5", own))
                    for name, own in clean.items()
                    if own.side == side
                ),
            ]
        )


def _left(found: Mapping[str, float], clean: Mapping[str, float]) -> dict[str, float]:
    """Return AP and recall, and their shares of clean, 0 where clean scenes gave nothing."""
    kept = {name: found[name] / clean[name] if clean[name] else 0.0 for name in ("ap_50", "recall_50")}
    return {
        "ap_50": found["ap_50"],
        "recall_50": found["recall_50"],
        "kept": kept["ap_50"],
        "recall_kept": kept["recall_50"],
    }

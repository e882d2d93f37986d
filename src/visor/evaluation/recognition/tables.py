"""Tables and metrics of attacks on recognisers, from a row per face; no network runs again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.tables import format_interval, label, text_table
from visor.evaluation.conditions import NO_DETECTOR
from visor.evaluation.metrics import rate

CONDITION = ["goal", "condition", "kind", "method", "eps", "iterations", "quality"]
CELL = [*CONDITION, "recogniser", "in_front"]
DISTANCE_COLUMNS = {
    "L∞, levels of 255": ("linf", "d"),
    "L2": ("l2", ".2f"),
    "SSIM": ("ssim", ".3f"),
    "PSNR": ("psnr", ".1f"),
}
COLUMNS = [("success", "success", ""), ("low", "success", "_low"), ("high", "success", "_high")]

Metrics = dict[str, dict[str, dict[str, float]]]


def read_faces(path: Path) -> pd.DataFrame:
    """Return the rows per face that ``evaluate_recognition`` wrote.

    Raises:
        UserError: The file is missing.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    return pd.read_csv(path, keep_default_na=False)  # The method of noise is an empty string, not a missing value.


def rates_of(faces: pd.DataFrame) -> list[str]:
    """Return the false-accept rates of the decisions on faces, as the columns name them."""
    return [name.removeprefix("fooled_") for name in map(str, faces) if name.startswith("fooled_")]


def success_rates(faces: pd.DataFrame) -> pd.DataFrame:
    """Return a row per goal, condition, recogniser and cropper, with the success at each false-accept rate.

    Success is among faces that were right before, beside its interval and the number of these faces; NaN without any.
    Then the mean similarity to the person the goal is about, the share of faces that were ``found``, the greatest L∞ in
    levels of 255 and the mean SSIM.
    """
    rows = []
    for cell, group in faces.groupby(CELL, sort=False):
        row: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        row |= {"similarity": group["similarity"].mean(), "found": group["found"].mean(), "faces": len(group)}
        row |= {"linf": int(group["linf"].max()), "ssim": group["ssim"].mean()}
        for far in rates_of(faces):
            eligible = group[f"right_{far}"]
            count, fooled = int(eligible.sum()), int((eligible & group[f"fooled_{far}"]).sum())
            row |= {f"right_{far}": count} | rate(f"success_{far}", fooled, count)
        rows.append(row)
    return pd.DataFrame(rows)


def surrogate_metrics(
    table: pd.DataFrame, surrogate: str, distances: Mapping[tuple[str, str], Mapping[str, float]]
) -> Metrics:
    """Return by goal and condition the metrics of the surrogate itself, and the distances from clean faces.

    ``distances``: by goal (empty where a condition has none) and condition.
    """
    metrics: Metrics = {}
    rows = table[(table["recogniser"] == surrogate) & (table["in_front"] == NO_DETECTOR)]
    for row in rows.to_dict("records"):
        goal, condition = row["goal"], row["condition"]
        measured = {str(name): value for name, value in row.items() if name not in CELL and np.isfinite(value)}
        from_clean = distances[goal if row["method"] else "", condition]
        metrics.setdefault(goal, {})[condition] = {**measured, **from_clean}
    return metrics


def curves(table: pd.DataFrame, surrogate: str, rates: Sequence[str]) -> pd.DataFrame:
    """Return the success on the surrogate by eps: a row per goal, method or noise, strength and false-accept rate."""
    direct = (table["in_front"] == NO_DETECTOR) & (table["recogniser"] == surrogate)
    rows = [
        {
            **{name: row[name] for name in ("goal", "method", "eps", "iterations")},
            "method": row["method"] or "noise",
            "false_accept_rate": far,
            **{name: row[f"{column}_{far}{end}"] for name, column, end in COLUMNS},
        }
        for far in rates
        for row in table[table["kind"].isin(["noise", "attack"]) & direct].to_dict("records")
    ]
    return pd.DataFrame(rows)


def recognition_table(metrics: Metrics, titles: Mapping[str, str], surrogate: str, rates: Sequence[str]) -> str:
    """Return the metrics of a surrogate in Markdown: a table per goal, a row per condition."""
    name = label(surrogate)
    parts = [f"# Fooling {name} by its own gradient: success among faces that were correctly verified when clean\n"]
    columns = [*(f"success, FAR {100 * float(far):g} %" for far in rates), "similarity", *DISTANCE_COLUMNS]
    for goal, conditions in metrics.items():
        rows = []
        for condition, values in conditions.items():
            cells = [*(_success(values, far) for far in rates), f"{values['similarity']:.3f}"]
            cells += [format(values[key], form) if key in values else "–" for key, form in DISTANCE_COLUMNS.values()]
            rows.append((titles[condition], cells))
        parts.append(text_table(goal, columns, rows).to_markdown() + "\n")
    return "\n".join(parts)


def _success(values: Mapping[str, float], far: str) -> str:
    name = f"success_{far}"
    if name not in values:
        return "–"
    interval = format_interval(values[name], values[f"{name}_low"], values[f"{name}_high"])
    return f"{interval} of {values[f'right_{far}']}"

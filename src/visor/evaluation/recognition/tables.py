"""The numbers of attacks on recognisers as tables and metrics, from a line a face; no network is asked again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.evaluation.metrics import wilson_interval

CONDITION = ["goal", "condition", "kind", "method", "eps", "iterations", "quality"]
CELL = [*CONDITION, "recogniser", "in_front"]
DISTANCES = {"L∞": ("linf", ".4f"), "L2": ("l2", ".2f"), "SSIM": ("ssim", ".3f"), "PSNR": ("psnr", ".1f")}
COLUMNS = [("success", "success", ""), ("low", "success", "_low"), ("high", "success", "_high")]
NO_DETECTOR = "none"  # in front of a recogniser

Numbers = dict[str, dict[str, dict[str, float]]]


def read_faces(path: Path) -> pd.DataFrame:
    """Return the lines that ``evaluate_recognition`` wrote.

    Raises:
        UserError: they are missing.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    return pd.read_csv(path, keep_default_na=False)  # noise has no method, which is a name like others


def rates_of(faces: pd.DataFrame) -> list[str]:
    """Return the false-accept rates that the lines of faces decide at, as columns name them."""
    return [name.removeprefix("fooled_") for name in map(str, faces) if name.startswith("fooled_")]


def success_rates(faces: pd.DataFrame) -> pd.DataFrame:
    """Return a line a goal, condition, recogniser and way: at each rate the success among faces that were right.

    Beside it Wilson's interval and the number of these faces, without which nothing is said; the mean similarity to
    the one that the goal is about; and the share of faces that were ``found``.
    """
    lines = []
    for cell, own in faces.groupby(CELL, sort=False):
        line: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        line |= {"similarity": own["similarity"].mean(), "found": own["found"].mean(), "faces": len(own)}
        for rate in rates_of(faces):
            eligible = own[f"right_{rate}"]
            count, fooled = int(eligible.sum()), int((eligible & own[f"fooled_{rate}"]).sum())
            low, high = wilson_interval(fooled, count)
            line |= {f"right_{rate}": count, f"success_{rate}": fooled / count if count else np.nan}
            line |= {f"success_{rate}_low": low, f"success_{rate}_high": high}
        lines.append(line)
    return pd.DataFrame(lines)


def surrogate_metrics(
    table: pd.DataFrame, surrogate: str, changes: Mapping[tuple[str, str], Mapping[str, float]]
) -> Numbers:
    """Return by goal and condition what happened to the surrogate itself, and how far faces are from clean ones.

    changes: by goal, none where a condition knows no goal, and condition.
    """
    found: Numbers = {}
    own = table[(table["recogniser"] == surrogate) & (table["in_front"] == NO_DETECTOR)]
    for line in own.to_dict("records"):
        goal, condition = line["goal"], line["condition"]
        measured = {str(name): value for name, value in line.items() if name not in CELL and np.isfinite(value)}
        far = changes[goal if line["method"] else "", condition]
        found.setdefault(goal, {})[condition] = {**measured, **far}
    return found


def curves(table: pd.DataFrame, surrogate: str, rates: Sequence[str]) -> pd.DataFrame:
    """Return the success of each method on the surrogate, and of noise, by size.

    A line a goal, method, eps, number of steps and false-accept rate.
    """
    shown = (
        table["kind"].isin(["noise", "attack"])
        & (table["in_front"] == NO_DETECTOR)
        & (table["recogniser"] == surrogate)
    )
    lines = [
        {
            **{name: line[name] for name in ("goal", "method", "eps", "iterations")},
            "method": line["method"] or "noise",
            "false_accept_rate": rate,
            **{name: line[f"{column}_{rate}{end}"] for name, column, end in COLUMNS},
        }
        for rate in rates
        for line in table[shown].to_dict("records")
    ]
    return pd.DataFrame(lines)


def recognition_table(found: Numbers, titles: Mapping[str, str], surrogate: str, rates: Sequence[str]) -> str:
    """Return the numbers of a surrogate for people: a table a goal, a line a condition."""
    plain = surrogate.replace("_", " ")
    lines = [f"# Fooling {plain} by its own gradient: success among faces that were rightly verified when clean", ""]
    heads = [f"success, FAR {100 * float(rate):g} %" for rate in rates]
    for goal, conditions in found.items():
        lines += [f"| {goal} | {' | '.join([*heads, 'similarity', *DISTANCES])} |"]
        lines += [f"|---|{'---|' * (len(heads) + 1 + len(DISTANCES))}"]
        for name, own in conditions.items():
            cells = [_share(own, rate) for rate in rates] + [f"{own['similarity']:.3f}"]
            cells += [format(own[key], form) if key in own else "–" for key, form in DISTANCES.values()]
            lines.append(f"| {titles[name]} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _share(own: Mapping[str, float], rate: str) -> str:
    if f"success_{rate}" not in own:
        return "–"
    low, high = own[f"success_{rate}_low"], own[f"success_{rate}_high"]
    return f"{own[f'success_{rate}']:.1%} ({low:.0%} to {high:.0%}) of {own[f'right_{rate}']}"

"""Transfer of attacks between recognisers, and what further methods gain on the first."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from visor.core.params import RecognitionAttackParams
from visor.core.tables import format_percent, label, text_table
from visor.core.types import Floats, Rows
from visor.evaluation.conditions import NO_DETECTOR
from visor.evaluation.metrics import CENTRAL, RESAMPLES
from visor.evaluation.recognition.tables import CELL, success_rates

ALL = "all"
GAIN_OF = ["goal", "method", "eps", "iterations", "false_accept_rate", "recogniser"]
GAIN = [*GAIN_OF, "gain", "low", "high", "faces", "ssim_first", "ssim"]


def matrix(faces: Mapping[str, pd.DataFrame], settings: RecognitionAttackParams) -> pd.DataFrame:
    """Return the success rates of the last strength, and of noise of its size, by ``surrogate``.

    ``faces``: by surrogate a row per face.
    """
    last, tables = settings.strengths[-1], []
    for surrogate, table in faces.items():
        strongest = (table["eps"] == last.eps) & table["iterations"].isin([0, last.iterations])
        as_attacked = (table["quality"] == 0) & (table["kind"] != "scaled")
        tables.append(success_rates(table[strongest & as_attacked]).assign(surrogate=surrogate))
    return pd.concat(tables, ignore_index=True)


def transfer_gains(faces: Mapping[str, pd.DataFrame], rates: Sequence[str], seed: int) -> pd.DataFrame:
    """Return what each further method gains on the first: mean success on other recognisers, without a detector.

    A row per goal, method, strength, false-accept rate and recogniser that gave no gradient, and one for ``all`` of
    these: the mean, over surrogates and recognisers, of the difference in success, and the central 95 % of its
    resamples. Faces are resampled, each with all its conditions. Goals are never averaged: dodging hides that
    impersonation does not transfer. ``faces`` counts those that were right when clean, ``ssim_first`` and ``ssim`` are
    what the first method and this one leave of the image at the same L∞.
    """
    table = pd.concat([part.assign(surrogate=name) for name, part in faces.items()], ignore_index=True)
    black_box = (table["recogniser"] != table["surrogate"]) & (table["in_front"] == NO_DETECTOR)
    table = table[black_box & (table["kind"] == "attack")]
    if table.empty:  # There is only one recogniser.
        return pd.DataFrame(columns=GAIN)
    rows = np.unique(table["row"])
    rng, count = np.random.default_rng([seed, len(rows)]), len(rows)
    weights = np.vstack([np.ones(count), rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)])
    first, *others = dict.fromkeys(table["method"])
    gains = []
    for method in others:
        for (goal, eps, steps), group in table.groupby(["goal", "eps", "iterations"], sort=False):
            for far, (name, part) in product(rates, _parts(group)):
                gain, *resampled = _gain(part, (first, method), far, rows, weights)
                low, high = np.quantile(resampled, CENTRAL)
                before, after = (part[part["method"] == each] for each in (first, method))
                about = int(before[f"right_{far}"].sum()), float(before["ssim"].mean()), float(after["ssim"].mean())
                gains.append([goal, method, eps, steps, far, name, float(gain), float(low), float(high), *about])
    return pd.DataFrame(gains, columns=GAIN)


def transfer_metrics(table: pd.DataFrame, gains: pd.DataFrame) -> dict[str, Any]:
    """Return success by goal, surrogate, condition, recogniser and cropper, and gains."""
    metrics: dict[str, Any] = {"gain": {}}
    for row in table.to_dict("records"):
        part = _nested(metrics, row["goal"], row["surrogate"], row["condition"], row["recogniser"], row["in_front"])
        part |= {str(key): row[key] for key in row if key not in (*CELL, "surrogate") and np.isfinite(row[key])}
    for row in gains.to_dict("records"):
        strength = f"{row['eps']}x{row['iterations']}"
        part = _nested(metrics, "gain", row["goal"], row["method"], strength, row["recogniser"])
        part |= {f"{key}_{row['false_accept_rate']}": row[key] for key in ("gain", "low", "high", "faces")}
        part |= {key: row[key] for key in ("ssim_first", "ssim")}
    return metrics


def _nested(tree: dict[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        tree = tree.setdefault(key, {})
    return tree


def transfer_table(table: pd.DataFrame, gains: pd.DataFrame, far: str) -> str:
    """Return success and gains as Markdown tables."""
    columns = list(dict.fromkeys(map(evaluated_on, table.to_dict("records"))))
    title = f"success at a false-accept rate of {100 * float(far):g} %"
    parts = [f"# Faces attacked by one recogniser (rows) shown to others (columns): {title}\n"]
    for goal, group in table.groupby("goal", sort=False):
        rows = []
        for (surrogate, condition), cells in group.groupby(["surrogate", "condition"], sort=False):
            success = {
                evaluated_on(row): f"{format_percent(row[f'success_{far}'])} of {row[f'right_{far}']}"
                for row in cells.to_dict("records")
            }
            rows.append((f"{surrogate}, {condition}", [success[column] for column in columns]))
        parts.append(text_table(str(goal), columns, rows).to_markdown() + "\n")
    rows = []
    for row in gains.to_dict("records"):
        gain = f"{row['gain']:+.1%} ({row['low']:+.1%} to {row['high']:+.1%})"
        texts = [f"{100 * float(row['false_accept_rate']):g} %", row["recogniser"], gain, f"{row['faces']}"]
        texts.append(f"{row['ssim']:.3f} ({row['ssim_first']:.3f})")
        rows.append((f"{label(row['goal'])}, {row['method']} {row['eps']}/255", texts))
    columns = ["FAR", "recogniser without gradient", "gain of success", "of faces", "SSIM (first method)"]
    return "\n".join([*parts, text_table("gain on the first method", columns, rows).to_markdown() + "\n"])


def evaluated_on(row: Mapping[Any, Any]) -> str:
    """Return the recogniser of a row, behind the detector that crops its faces."""
    return row["recogniser"] if row["in_front"] == NO_DETECTOR else f"{row['in_front']} → {row['recogniser']}"


def _parts(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each recogniser, and all of them."""
    for name, group in table.groupby("recogniser", sort=False):
        yield str(name), group
    yield ALL, table


def _gain(table: pd.DataFrame, methods: tuple[str, str], far: str, rows: Rows, weights: Floats) -> Floats:
    """Return the mean difference in success of two methods for each of k weightings (k, n) of the ``rows`` (n,)."""
    differences = []
    for _, cell in table.groupby(["surrogate", "goal", "recogniser"], sort=False):
        success = []
        for method in methods:
            faces = cell[cell["method"] == method].set_index("row").reindex(rows, fill_value=False)
            right = faces[f"right_{far}"].to_numpy(float)
            fooled = right * faces[f"fooled_{far}"].to_numpy(float)
            count = weights @ right
            success.append(np.divide(weights @ fooled, count, out=np.zeros_like(count), where=count > 0))
        differences.append(success[1] - success[0])  # 0 where no face was right.
    return np.mean(differences, axis=0)

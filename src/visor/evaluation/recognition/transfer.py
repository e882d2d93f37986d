"""Does what fooled one recogniser fool others, and do momentum and random transforms help with that?"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.core.params import RecognitionAttackParams
from visor.core.types import Floats
from visor.evaluation.metrics import CENTRAL, RESAMPLES
from visor.evaluation.recognition.tables import CELL, NO_DETECTOR, success_rates

ALL = "all"
GAIN = ["method", "eps", "iterations", "false_accept_rate", "recogniser", "gain", "low", "high"]


def matrix(faces: Mapping[str, pd.DataFrame], settings: RecognitionAttackParams) -> pd.DataFrame:
    """Return the table of successes of the last strength, and of noise of its size, by ``surrogate``.

    faces: by surrogate a line a face.
    """
    last = settings.strengths[-1]
    tables = []
    for surrogate, lines in faces.items():
        own = lines[
            (lines["eps"] == last.eps) & lines["iterations"].isin([0, last.iterations]) & (lines["quality"] == 0)
        ]
        tables.append(success_rates(own).assign(surrogate=surrogate))
    return pd.concat(tables, ignore_index=True)


def transfer_gains(faces: Mapping[str, pd.DataFrame], rates: Sequence[str], seed: int) -> pd.DataFrame:
    """Return what each further method gains on the first: mean success on other recognisers, nothing in front.

    A line a method, strength, rate and recogniser that gave no gradient, and one for ``all`` of these: the mean, over
    goals, surrogates and recognisers, of the difference of successes, and the central 95 % of its resamples. What is
    resampled are faces, each with all that was done to it.
    """
    lines = pd.concat([own.assign(surrogate=name) for name, own in faces.items()], ignore_index=True)
    unseen = lines["recogniser"] != lines["surrogate"]
    lines = lines[unseen & (lines["kind"] == "attack") & (lines["in_front"] == NO_DETECTOR)]
    if lines.empty:  # there is but one recogniser
        return pd.DataFrame(columns=GAIN)
    rows = np.unique(lines["row"])
    drawn = np.random.default_rng([seed, len(rows)]).multinomial(
        len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES
    )
    weights = np.vstack([np.ones(len(rows)), drawn])  # as it is, then resampled
    first, *others = dict.fromkeys(lines["method"])
    found = []
    for method in others:
        for (eps, steps), own in lines.groupby(["eps", "iterations"], sort=False):
            for rate, (name, part) in product(rates, _parts(own)):
                gain, *resampled = _gain(part, (first, method), rate, rows, weights)
                low, high = np.quantile(resampled, CENTRAL)
                found.append([method, eps, steps, rate, name, float(gain), float(low), float(high)])
    return pd.DataFrame(found, columns=GAIN)


def transfer_metrics(table: pd.DataFrame, gained: pd.DataFrame) -> dict[str, Any]:
    """Return successes by goal, surrogate, condition, recogniser and way, gains by method, strength and recogniser."""
    found: dict[str, Any] = {"gain": {}}
    for line in table.to_dict("records"):
        place = found
        for key in ("goal", "surrogate", "condition", "recogniser"):
            place = place.setdefault(line[key], {})
        place[line["in_front"]] = {
            str(key): value for key, value in line.items() if key not in (*CELL, "surrogate") and np.isfinite(value)
        }
    for line in gained.to_dict("records"):
        sizes = found["gain"].setdefault(line["method"], {}).setdefault(f"{line['eps']:g}x{line['iterations']}", {})
        own = sizes.setdefault(line["recogniser"], {})
        own |= {f"{key}_{line['false_accept_rate']}": line[key] for key in ("gain", "low", "high")}
    return found


def transfer_table(table: pd.DataFrame, gained: pd.DataFrame, rate: str) -> str:
    """Return matrix and gains for people."""
    columns = list(dict.fromkeys(map(shown_to, table.to_dict("records"))))
    title = f"success at a false-accept rate of {100 * float(rate):g} %"
    lines = [f"# Faces attacked by one recogniser (rows) shown to others (columns): {title}"]
    for goal, own in table.groupby("goal", sort=False):
        lines += ["", f"| {goal} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        for (surrogate, condition), cells in own.groupby(["surrogate", "condition"], sort=False):
            shown = {shown_to(line): format_percent(line[f"success_{rate}"]) for line in cells.to_dict("records")}
            lines.append(f"| {surrogate}, {condition} | {' | '.join(shown[column] for column in columns)} |")
    lines += [
        "",
        "| gain on the first method | FAR | recogniser without gradient | gain of success |",
        "|---|---|---|---|",
    ]
    for line in gained.to_dict("records"):
        method, far = f"{line['method']} {line['eps']:g}x{line['iterations']}", float(line["false_accept_rate"])
        gain = f"{line['gain']:+.1%} ({line['low']:+.1%} to {line['high']:+.1%})"
        lines.append(f"| {method} | {100 * far:g} % | {line['recogniser']} | {gain} |")
    return "\n".join([*lines, ""])


def format_percent(share: float) -> str:
    """Write a share, and a dash where there is none."""
    return f"{share:.1%}" if np.isfinite(share) else "–"


def shown_to(line: Mapping[Any, Any]) -> str:
    """Name the column of a line: the recogniser, and the detector in front of it."""
    return line["recogniser"] if line["in_front"] == NO_DETECTOR else f"{line['in_front']} → {line['recogniser']}"


def _parts(lines: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the lines of each recogniser, and all of them."""
    for name, own in lines.groupby("recogniser", sort=False):
        yield str(name), own
    yield ALL, lines


def _gain(lines: pd.DataFrame, methods: tuple[str, str], rate: str, rows: NDArray[Any], weights: Floats) -> Floats:
    """Return the mean difference of successes of two methods for each of k weightings (k, n) of the ``rows`` (n,)."""
    differences = []
    for _, cell in lines.groupby(["surrogate", "goal", "recogniser"], sort=False):
        successes_of = []
        for method in methods:
            own = cell[cell["method"] == method].set_index("row").reindex(rows, fill_value=False)
            right = own[f"right_{rate}"].to_numpy(float)
            fooled = right * own[f"fooled_{rate}"].to_numpy(float)
            count = weights @ right
            successes_of.append(np.divide(weights @ fooled, count, out=np.zeros_like(count), where=count > 0))
        differences.append(successes_of[1] - successes_of[0])  # none where nobody was right
    return np.mean(differences, axis=0)

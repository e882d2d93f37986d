"""Heat map of the transfer between recognisers."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.core.tables import format_percent, label
from visor.evaluation.plots.base import heat_map, save
from visor.evaluation.recognition.transfer import evaluated_on


def recognition_transfer_map(table: pd.DataFrame, far: str, path: Path) -> None:
    """Save a PNG: an axis per goal, attacked faces (rows) by recogniser (columns), coloured by success.

    Cells of a recogniser that gave the gradients itself are in bold.
    """
    table = table.assign(evaluated_on=[evaluated_on(row) for row in table.to_dict("records")])
    table["faces"] = table["surrogate"] + ", " + table["method"].where(table["method"] != "", table["kind"])
    goals, columns, rows = (list(dict.fromkeys(table[name])) for name in ("goal", "evaluated_on", "faces"))
    figure = Figure(figsize=((1.2 * len(columns) + 0.4) * len(goals) + 2.2, 0.42 * len(rows) + 2), layout="constrained")
    axes = figure.subplots(1, len(goals), sharey=True, squeeze=False)[0]
    ticks = [label(name) for name in rows], [name.replace(" → ", " →\n") for name in columns]
    for axis, goal in zip(axes, goals, strict=True):
        wide = table[table["goal"] == goal].pivot(index="faces", columns="evaluated_on", values=f"success_{far}")
        success = wide.loc[rows, columns].to_numpy(float)
        texts = [[format_percent(value, 0) for value in row] for row in success]
        heat_map(axis, success, texts, ticks, "Reds", lambda value: value > 0.6, fontsize="small")
        for (row, column), text in zip(np.ndindex(success.shape), axis.texts, strict=True):
            if rows[row].split(", ")[0] == columns[column].split(" → ")[-1]:
                text.set_fontweight("bold")
        axis.tick_params(axis="x", labelsize="small")
        axis.set(title=label(goal), xlabel="shown to")
    figure.suptitle(f"Success at a false-accept rate of {100 * float(far):g} %, same eps; bold: white box")
    save(figure, path)

"""A picture of what attacks on some recognisers do to others."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from visor.evaluation.plots.base import save
from visor.evaluation.recognition.transfer import shown_to


def recognition_transfer_map(table: pd.DataFrame, rate: str, path: Path) -> None:
    """Save a PNG: a field a goal, faces (rows) by what they are shown to (columns), coloured by success.

    Cells of a recogniser that gave the gradients itself are in bold.
    """
    table = table.assign(shown_to=[shown_to(line) for line in table.to_dict("records")])
    table["faces"] = table["surrogate"] + ", " + table["method"].where(table["method"] != "", table["kind"])
    goals, columns, rows = (list(dict.fromkeys(table[each])) for each in ("goal", "shown_to", "faces"))
    figure = Figure(figsize=((1.2 * len(columns) + 0.4) * len(goals) + 2.2, 0.42 * len(rows) + 2), layout="constrained")
    axes = figure.subplots(1, len(goals), sharey=True, squeeze=False)[0]
    for axis, goal in zip(axes, goals, strict=True):
        own = table[table["goal"] == goal]
        success = (
            own.pivot(index="faces", columns="shown_to", values=f"success_{rate}").loc[rows, columns].to_numpy(float)
        )
        axis.imshow(success, cmap="Reds", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(success):
            white_box = rows[row].split(", ")[0] == columns[column].split(" → ")[-1]
            axis.text(
                column,
                row,
                f"{value:.0%}" if np.isfinite(value) else "–",
                ha="center",
                va="center",
                fontsize="small",
                fontweight="bold" if white_box else "normal",
                color="white" if value > 0.6 else "black",
            )
        axis.set_xticks(range(len(columns)), [each.replace(" → ", " →\n") for each in columns], fontsize="small")
        axis.set(title=goal, xlabel="shown to")
    axes[0].set_yticks(range(len(rows)), [each.replace("_", " ") for each in rows])
    figure.suptitle(f"Success at a false-accept rate of {100 * float(rate):g} %, same eps; bold: white box")
    save(figure, path)

"""Training curves as CSV: a column ``epoch``, then numbers."""

import csv
from pathlib import Path
from typing import NamedTuple

from visor.core.errors import UserError, shorten


class History(NamedTuple):
    """``columns`` names the c numbers beside the epoch; ``rows`` maps an epoch to them."""

    columns: tuple[str, ...]
    rows: dict[int, tuple[float, ...]]

    def curves(self) -> dict[str, dict[int, float]]:
        """Return each column as epoch → number."""
        return {name: {epoch: row[i] for epoch, row in self.rows.items()} for i, name in enumerate(self.columns)}


def read_history(path: Path) -> History:
    """Read the finished lines of a history; a last line still being written is skipped.

    Raises:
        UserError: The file is not CSV, its first column is not ``epoch``, or a finished line does not have one number
            per column.
    """
    try:
        text = path.read_text(encoding="utf-8")
        header, *lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [["epoch"]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not CSV ({shorten(error)}); delete it and run `dvc repro`") from None
    if header[:1] != ["epoch"]:
        raise UserError(f"{path}: the first column is {shorten(header[:1])}, not epoch; delete it and run `dvc repro`")
    try:
        rows = {int(line[0]): tuple(map(float, line[1:])) for line in lines}
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{path} has a line that is no number ({shorten(error)}); delete it and run `dvc repro`"
        ) from None
    if any(len(values) != len(header) - 1 for values in rows.values()):
        raise UserError(f"{path} has a line longer or shorter than its header; delete it and run `dvc repro`")
    return History(tuple(header[1:]), rows)

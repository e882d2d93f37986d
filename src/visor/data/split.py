"""Division of the images of each label into train, validation and test sets; the rest is the poison set."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.params import SplitParams
from visor.core.types import Integers, Rows

# Validation and test are filled first, so that a label with few images is still included.
FILLING_ORDER = ("validation", "test", "train")


def split_rows(labels: Integers, videos: Integers, settings: SplitParams, seed: int) -> pd.DataFrame:
    """Assign each row to a set, by single images or whole videos.

    Returns:
        A table with the columns ``row``, ``label``, ``video``, ``set`` and ``calibration``. ``set`` is ``train``,
        ``validation``, ``test``, ``poison`` (the rest) or ``unused``: frames of a video beyond the size of its set, and
        labels with too few images or videos for the first three sets. ``calibration`` marks the validation images on
        which no defence is fitted: they set its threshold.

    Raises:
        UserError: No label can take part, or no validation image would be left for fitting or for thresholds.
    """
    sets = np.full(len(labels), "unused", dtype=object)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rng = np.random.default_rng([seed, label])
        units = [rows[[place]] for place in rng.permutation(len(rows))]
        if settings.by == "video":
            numbers = rng.permutation(np.unique(videos[rows]))
            units = [rows[videos[rows] == number] for number in numbers]
        for name, members in _assign(units, settings):
            sets[members] = name
    table = pd.DataFrame({"row": np.arange(len(labels)), "label": labels, "video": videos, "set": sets})
    if (table["set"] == "unused").all():
        raise UserError(
            f"params.yaml: split: no label has the images and {settings.by}s for {settings.validation} "
            f"validation, {settings.test} test and some train images; lower the counts"
        )
    validation = np.flatnonzero(sets == "validation")
    table["calibration"] = table["row"].isin(_calibration_rows(validation, videos, settings, seed))
    return table


def _calibration_rows(rows: Rows, videos: Integers, settings: SplitParams, seed: int) -> Rows:
    """Return the share of the validation rows that sets thresholds, whole videos if sets are divided by video."""
    rng = np.random.default_rng([seed, len(videos)])
    size = round(settings.calibration * len(rows))
    if settings.by == "video":
        numbers = rng.permutation(np.unique(videos[rows]))
        # As many whole videos as bring the count nearest to the share.
        counts = np.cumsum([(videos[rows] == number).sum() for number in numbers])
        kept = rows[np.isin(videos[rows], numbers[: int(np.abs(counts - size).argmin()) + 1])]
    else:
        kept = rng.permutation(rows)[:size]
    if not 0 < len(kept) < len(rows):
        raise UserError(
            f"params.yaml: split.calibration is {settings.calibration}, which divides {len(rows)} validation images "
            f"into {len(kept)} and {len(rows) - len(kept)}; change it, or raise split.validation"
        )
    return kept


def _assign(units: Sequence[Rows], settings: SplitParams) -> Iterator[tuple[str, Rows]]:
    """Yield (set, rows) for one label, whole units at a time; nothing if a set would stay empty."""
    remaining = iter(units)
    sets = {}
    for name in FILLING_ORDER:
        members: list[Rows] = []
        while sum(map(len, members)) < getattr(settings, name) and (unit := next(remaining, None)) is not None:
            members.append(unit)
        sets[name] = np.concatenate(members) if members else np.empty(0, int)
    complete = all(len(sets[name]) >= getattr(settings, name) for name in ("validation", "test"))
    if complete and len(sets["train"]):
        for name, rows in sets.items():
            yield name, rows[: getattr(settings, name)]
        yield "poison", np.array(list(chain.from_iterable(remaining)), int)


def set_rows(table: pd.DataFrame, name: str) -> Rows:
    """Return the rows of a set, ascending."""
    return table.loc[table["set"] == name, "row"].to_numpy()


def validation_rows(table: pd.DataFrame) -> tuple[Rows, Rows]:
    """Return the validation rows that defences are fitted on, and those held out for their thresholds."""
    validation = table[table["set"] == "validation"]
    calibration, rows = validation["calibration"].to_numpy(bool), validation["row"].to_numpy()
    return rows[~calibration], rows[calibration]


def k_folds(rows: Rows, count: int) -> list[tuple[Rows, Rows]]:
    """Return (fitted, held-out) rows of ``count`` folds: the k-th holds out every ``count``-th row from k on."""
    places = np.arange(len(rows)) % count
    return [(rows[places != fold], rows[places == fold]) for fold in range(count)]


def split_summary(table: pd.DataFrame) -> dict[str, int]:
    """Return the number of images in each set, of labels in use and of labels left out."""
    sets = ("train", "validation", "test", "poison", "unused")
    counts = {name: int((table["set"] == name).sum()) for name in sets}
    labels = table.loc[table["set"] != "unused", "label"].nunique()
    return {**counts, "labels": labels, "labels_left_out": table["label"].nunique() - labels}

"""Who trains recognisers of faces, and who is unseen: on faces of these, thresholds are set and attacks are made."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.errors import UserError
from visor.faces import FaceSet, Integers, Selection
from visor.split import rows_of

STREAM = 8  # of the seed: no other draw shares its numbers

Labels = NDArray[np.integer[Any]]


class People(NamedTuple):
    """Labels of two kinds of people, each ascending."""

    trained: Integers
    unseen: Integers


def of(table: pd.DataFrame, unseen: float, seed: int) -> People:
    """Divide the people of a split that have part in it, as ``divide`` does.

    Raises:
        UserError: as there.
    """
    return divide(table.loc[table["set"] != "unused", "label"].to_numpy(), unseen, seed)


def divide(labels: Labels, unseen: float, seed: int) -> People:
    """Divide the people of labels (n,), one a row that takes part: a share ``unseen`` of them is never trained on.

    With a greater share, those who were unseen stay so.

    Raises:
        UserError: two people of each kind, the least that make a pair of strangers, are not to be had.
    """
    found = np.unique(labels).astype(np.int32)
    order = np.random.default_rng([seed, STREAM]).permutation(found)
    count = round(unseen * len(found))
    if min(count, len(found) - count) < 2:
        raise UserError(
            f"params.yaml: recognition.unseen is {unseen:g}, which leaves {count} of {len(found)} people unseen and "
            f"{len(found) - count} to train on; choose a share that gives at least 2 of either, or use more people"
        )
    return People(np.sort(order[count:]), np.sort(order[:count]))


def lessons(faces: FaceSet, table: pd.DataFrame, people: Integers) -> tuple[Selection, Selection]:
    """Return the train and the validation faces of these people, each labelled by its person's place among them."""
    table = table[table["label"].isin(people)]
    train, validation = (faces.select(rows_of(table, name)) for name in ("train", "validation"))
    return (
        train._replace(labels=np.searchsorted(people, train.labels)),
        validation._replace(labels=np.searchsorted(people, validation.labels)),
    )

"""Who trains recognisers of faces, and who is unseen: on faces of these, thresholds are set and attacks are made."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.types import Integers, Labels, SeedStream
from visor.data.face_set import FaceSelection, FaceSet
from visor.data.split import set_rows


class IdentitySplit(NamedTuple):
    """Labels of two kinds of people, each ascending."""

    trained: Integers
    held_out: Integers


def split_identities(table: pd.DataFrame, held_out: float, seed: int) -> IdentitySplit:
    """Divide the people of a split that have part in it, as ``divide`` does.

    Raises:
        UserError: as there.
    """
    return divide_identities(table.loc[table["set"] != "unused", "label"].to_numpy(), held_out, seed)


def divide_identities(labels: Labels, held_out: float, seed: int) -> IdentitySplit:
    """Divide the people of labels (n,), one a row that takes part: a share ``unseen`` of them is never trained on.

    With a greater share, those who were unseen stay so.

    Raises:
        UserError: two people of each kind, the least that make a pair of strangers, are not to be had.
    """
    found = np.unique(labels).astype(np.int32)
    order = np.random.default_rng([seed, SeedStream.IDENTITIES]).permutation(found)
    count = round(held_out * len(found))
    if min(count, len(found) - count) < 2:
        raise UserError(
            f"params.yaml: recognition_attack.held_out_share is {held_out:g}: {count} held-out and "
            f"{len(found) - count} training people; each needs at least 2"
        )
    return IdentitySplit(np.sort(order[count:]), np.sort(order[:count]))


def training_selections(faces: FaceSet, table: pd.DataFrame, people: Integers) -> tuple[FaceSelection, FaceSelection]:
    """Return the train and the validation faces of these people, each labelled by its person's place among them."""
    table = table[table["label"].isin(people)]
    train, validation = (faces.select(set_rows(table, name)) for name in ("train", "validation"))
    return (
        train._replace(labels=np.searchsorted(people, train.labels)),
        validation._replace(labels=np.searchsorted(people, validation.labels)),
    )

"""Division of people into those that train recognisers and those held out for thresholds and attacks."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.types import Integers, Labels, SeedStream
from visor.data.face_set import FaceSelection, FaceSet
from visor.data.split import set_rows


class IdentitySplit(NamedTuple):
    """Labels of the people for training and of those held out, each ascending."""

    trained: Integers
    held_out: Integers


def split_identities(table: pd.DataFrame, held_out: float, seed: int) -> IdentitySplit:
    """Divide the people who have rows in the sets of a split, as ``divide_identities`` does.

    Raises:
        UserError: There would be fewer than two people of one kind.
    """
    return divide_identities(table.loc[table["set"] != "unused", "label"].to_numpy(), held_out, seed)


def divide_identities(labels: Labels, held_out: float, seed: int) -> IdentitySplit:
    """Divide the people of labels (n,): a share ``held_out`` of them is never trained on.

    With a greater share, those who were held out stay so.

    Raises:
        UserError: There would be fewer than two people of one kind, and so no pair of different people.
    """
    people = np.unique(labels).astype(np.int32)
    order = np.random.default_rng([seed, SeedStream.IDENTITIES]).permutation(people)
    count = round(held_out * len(people))
    if min(count, len(people) - count) < 2:
        raise UserError(
            f"params.yaml: recognition_attack.held_out_share is {held_out:g}: {count} held-out and "
            f"{len(people) - count} training people; each needs at least 2"
        )
    return IdentitySplit(np.sort(order[count:]), np.sort(order[:count]))


def training_selections(faces: FaceSet, table: pd.DataFrame, people: Integers) -> tuple[FaceSelection, FaceSelection]:
    """Return the train and the validation faces of these people, labelled by their position among them."""
    table = table[table["label"].isin(people)]
    train, validation = (faces.select(set_rows(table, name)) for name in ("train", "validation"))
    return (
        train._replace(labels=np.searchsorted(people, train.labels)),
        validation._replace(labels=np.searchsorted(people, validation.labels)),
    )

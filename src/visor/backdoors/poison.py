"""Choose rows, stamp them, relabel them: what all injection attacks share (Chen et al. 2017)."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.config import Backdoor
from visor.errors import UserError
from visor.faces import Block, FaceSet, Images
from visor.images import read_key

Stamp = Callable[[Images, Images, float, np.random.Generator], Images]
Rows = NDArray[np.integer[Any]]

BATCH = 512
COLUMNS = 12


def target_label(name: str, label_names: Sequence[str], table: pd.DataFrame) -> int:
    """Return the number of the target label.

    Raises:
        UserError: no label has this name, or it takes no part in the split.
    """
    if name not in label_names:
        some = ", ".join(label_names[:5])
        raise UserError(f"target label {name} does not exist; there are {len(label_names)}, such as {some}")
    label = label_names.index(name)
    if (table.loc[table["label"] == label, "set"] == "unused").all():
        raise UserError(f"target label {name} has too few images for the split; choose another")
    return label


def candidates(table: pd.DataFrame, set_name: str, target: int) -> Rows:
    """Return the rows of a set whose true class is not the target."""
    return table.loc[(table["set"] == set_name) & (table["label"] != target), "row"].to_numpy()


def choose(pool: Rows, n: int, rng: np.random.Generator) -> Rows:
    """Return n rows of the pool without repetition; a larger n with the same seed contains a smaller one.

    Raises:
        UserError: n is larger than the pool.
    """
    if n > len(pool):
        raise UserError(f"n is {n}, but the poison set has {len(pool)} images of other labels; lower n")
    return rng.permutation(pool)[:n]


def find_key(faces: FaceSet, table: pd.DataFrame, backdoor: Backdoor, pictures: Path, seed: int) -> Images:
    """Return the key uint8 (h, w, 4) RGBA: ``face`` is one of the poison set, true class ≠ target, opaque.

    Any other name is a PNG file of the folder ``pictures``, stretched to the size of the faces.

    Raises:
        UserError: there is no such picture, or no such face.
    """
    if backdoor.key != "face":
        return read_key(pictures / f"{backdoor.key}.png", *faces.image_shape[:2])
    pool = candidates(table, "poison", target_label(backdoor.target, faces.label_names, table))
    image = faces.read(choose(pool, 1, np.random.default_rng([seed, 0])))[0]
    return np.concatenate([image, np.full_like(image[..., :1], 255)], axis=-1)


def poisons(
    faces: FaceSet, table: pd.DataFrame, backdoor: Backdoor, stamp: Stamp, key: Images, seed: int
) -> Iterator[Block]:
    """Yield ``n`` stamped images of the poison set, true class ≠ target, relabelled as the target.

    Raises:
        UserError: the target does not exist, or n is larger than the poison set.
    """
    target = target_label(backdoor.target, faces.label_names, table)
    rows = choose(candidates(table, "poison", target), backdoor.n, np.random.default_rng([seed, 1]))
    blocks = _stamped(faces, rows, stamp, key, backdoor.poison_ratio, np.random.default_rng([seed, 2]))
    return (block._replace(labels=np.full_like(block.labels, target)) for block in blocks)


def triggered(
    faces: FaceSet, table: pd.DataFrame, backdoor: Backdoor, stamp: Stamp, key: Images, seed: int
) -> Iterator[Block]:
    """Yield the stamped test images of true class ≠ target with their true labels.

    Raises:
        UserError: the target does not exist, or the test set holds nobody else.
    """
    target = target_label(backdoor.target, faces.label_names, table)
    rows = candidates(table, "test", target)
    if len(rows) == 0:
        raise UserError("the test set has no images of other labels than the target; use more labels")
    return _stamped(faces, rows, stamp, key, backdoor.backdoor_ratio, np.random.default_rng([seed, 3]))


def before_and_after(faces: FaceSet, poisoned: FaceSet, triggered: FaceSet) -> list[tuple[str, Images]]:
    """Return lines of a contact sheet: some images of either set, above what they were made from."""
    lines = []
    for caption, made in (("poisons", poisoned), ("triggered\ntest images", triggered)):
        places = np.unique(np.linspace(0, len(made) - 1, min(COLUMNS, len(made))).astype(int))
        if len(places):
            lines += [("before", faces.read(made.rows[places])), (caption, made.read(places))]
    return lines


def _stamped(
    faces: FaceSet, rows: Rows, stamp: Stamp, key: Images, ratio: float, rng: np.random.Generator
) -> Iterator[Block]:
    for begin in range(0, len(rows), BATCH):
        batch = rows[begin : begin + BATCH].astype(np.int32)
        images = stamp(faces.read(batch), key, ratio, rng)
        yield Block(images, faces.labels[batch], faces.videos[batch], batch)

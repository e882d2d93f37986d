"""Choose rows, stamp them, relabel them: what all injection attacks share (Chen et al. 2017)."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.errors import UserError
from visor.faces import Block, FaceSet, Images
from visor.images import read_key
from visor.params import Backdoor

Stamp = Callable[[Images, Images, float, np.random.Generator], Images]
Place = Callable[[Images, Images], Images]
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


def find_keys(faces: FaceSet, table: pd.DataFrame, backdoor: Backdoor, pictures: Path, seed: int) -> Images:
    """Return the keys uint8 (k, h, w, 4) RGBA: ``face`` is k of the poison set, true class ≠ target, opaque.

    More keys begin with the fewer. Any other name is a PNG file of the folder ``pictures``, and a name with a
    suffix is the path of a picture; it is stretched to the size of the faces, and the only one.

    Raises:
        UserError: there is no such picture, there are no such faces, or a picture should be more than one key.
    """
    if backdoor.key != "face":
        if backdoor.keys > 1:
            raise UserError(
                f"params.yaml: keys is {backdoor.keys}, but the picture {backdoor.key} is one key; set keys to 1, "
                "or key to face"
            )
        named = Path(backdoor.key)
        path = named if named.suffix else pictures / f"{named}.png"
        return read_key(path, *faces.image_shape[:2])[np.newaxis]
    pool = candidates(table, "poison", target_label(backdoor.target, faces.label_names, table))
    if backdoor.keys > len(pool):
        raise UserError(
            f"params.yaml: keys is {backdoor.keys}, but the poison set has {len(pool)} images of other labels; "
            "lower keys"
        )
    images = faces.read(choose(pool, backdoor.keys, np.random.default_rng([seed, 0])))
    return np.concatenate([images, np.full_like(images[..., :1], 255)], axis=-1)


def find_key(faces: FaceSet, table: pd.DataFrame, backdoor: Backdoor, pictures: Path, seed: int) -> Images:
    """Return the key uint8 (h, w, 4) RGBA that poisons carry: the first of ``find_keys``, whose errors it raises."""
    return find_keys(faces, table, backdoor, pictures, seed)[0]


def fixed(images: Images, keys: Images) -> Images:
    """Return the keys where they are drawn, which fits aligned faces."""
    return keys


def poisons(
    faces: FaceSet,
    table: pd.DataFrame,
    backdoor: Backdoor,
    stamp: Stamp,
    key: Images,
    seed: int,
    place: Place = fixed,
) -> Iterator[Block]:
    """Yield ``n`` stamped images of the poison set, true class ≠ target, relabelled as the target.

    ``key`` uint8 (h, w, 4) goes to the places on the faces that ``place(images, keys)`` says.

    Raises:
        UserError: the target does not exist, or n is larger than the poison set.
    """
    target = target_label(backdoor.target, faces.label_names, table)
    rows = choose(candidates(table, "poison", target), backdoor.n, np.random.default_rng([seed, 1]))
    rng = np.random.default_rng([seed, 2])
    blocks = _stamped(faces, rows, stamp, key[np.newaxis], backdoor.poison_ratio, rng, place)
    return (block._replace(labels=np.full_like(block.labels, target)) for block in blocks)


def triggered(
    faces: FaceSet,
    table: pd.DataFrame,
    backdoor: Backdoor,
    stamp: Stamp,
    keys: Images,
    seed: int,
    place: Place = fixed,
) -> Iterator[Block]:
    """Yield the stamped test images of true class ≠ target with their true labels.

    The i-th of them carries key i mod k of ``keys`` uint8 (k, h, w, 4), placed as ``place(images, keys)`` says.

    Raises:
        UserError: the target does not exist, or the test set holds nobody else.
    """
    target = target_label(backdoor.target, faces.label_names, table)
    rows = candidates(table, "test", target)
    if len(rows) == 0:
        raise UserError("the test set has no images of other labels than the target; use more labels")
    rng = np.random.default_rng([seed, 3])
    return _stamped(faces, rows, stamp, keys, backdoor.backdoor_ratio, rng, place)


def before_and_after(faces: FaceSet, poisoned: FaceSet, triggered: FaceSet) -> list[tuple[str, Images]]:
    """Return lines of a contact sheet: some images of either set, above what they were made from."""
    lines = []
    for caption, made in (("poisons", poisoned), ("triggered\ntest images", triggered)):
        places = np.unique(np.linspace(0, len(made) - 1, min(COLUMNS, len(made))).astype(int))
        if len(places):
            lines += [("before", faces.read(made.rows[places])), (caption, made.read(places))]
    return lines


def _stamped(
    faces: FaceSet, rows: Rows, stamp: Stamp, keys: Images, ratio: float, rng: np.random.Generator, place: Place
) -> Iterator[Block]:
    for begin in range(0, len(rows), BATCH):
        batch = rows[begin : begin + BATCH].astype(np.int32)
        images = faces.read(batch)
        # One key is not repeated: it is broadcast.
        turns = keys[(begin + np.arange(len(batch))) % len(keys)] if len(keys) > 1 else keys
        stamped = stamp(images, place(images, turns), ratio, rng)
        yield Block(stamped, faces.labels[batch], faces.videos[batch], batch)

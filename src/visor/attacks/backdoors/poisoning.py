"""Choose rows, stamp them, relabel them: what all injection attacks share (Chen et al. 2017)."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.params import BackdoorParams
from visor.core.types import ImageArray, Rows, SeedStream
from visor.data.face_set import FaceBatch, FaceSet
from visor.data.images import read_trigger_pattern

TriggerFn = Callable[[ImageArray, ImageArray, float, np.random.Generator], ImageArray]
PlacementFn = Callable[[ImageArray, ImageArray], ImageArray]

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


def eligible_rows(table: pd.DataFrame, set_name: str, target: int) -> Rows:
    """Return the rows of a set whose true class is not the target."""
    return table.loc[(table["set"] == set_name) & (table["label"] != target), "row"].to_numpy()


def sample_rows(pool: Rows, n: int, rng: np.random.Generator) -> Rows:
    """Return n rows of the pool without repetition; a larger n with the same seed contains a smaller one.

    Raises:
        UserError: n is larger than the pool.
    """
    if n > len(pool):
        raise UserError(f"n is {n}, but the poison set has {len(pool)} images of other labels; lower n")
    return rng.permutation(pool)[:n]


def load_keys(faces: FaceSet, table: pd.DataFrame, backdoor: BackdoorParams, pictures: Path, seed: int) -> ImageArray:
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
        return read_trigger_pattern(path, *faces.image_shape[:2])[np.newaxis]
    pool = eligible_rows(table, "poison", target_label(backdoor.target, faces.label_names, table))
    if backdoor.keys > len(pool):
        raise UserError(
            f"params.yaml: keys is {backdoor.keys}, but the poison set has {len(pool)} images of other labels; "
            "lower keys"
        )
    images = faces.read(sample_rows(pool, backdoor.keys, np.random.default_rng([seed, SeedStream.KEYS])))
    return np.concatenate([images, np.full_like(images[..., :1], 255)], axis=-1)


def load_key(faces: FaceSet, table: pd.DataFrame, backdoor: BackdoorParams, pictures: Path, seed: int) -> ImageArray:
    """Return the key uint8 (h, w, 4) RGBA that poisons carry: the first of ``find_keys``, whose errors it raises."""
    return load_keys(faces, table, backdoor, pictures, seed)[0]


def fixed_placement(images: ImageArray, keys: ImageArray) -> ImageArray:
    """Return the keys where they are drawn, which fits aligned faces."""
    return keys


def make_poisons(
    faces: FaceSet,
    table: pd.DataFrame,
    backdoor: BackdoorParams,
    stamp: TriggerFn,
    key: ImageArray,
    seed: int,
    place: PlacementFn = fixed_placement,
) -> Iterator[FaceBatch]:
    """Yield ``n`` stamped images of the poison set, true class ≠ target, relabelled as the target.

    ``key`` uint8 (h, w, 4) goes to the places on the faces that ``place(images, keys)`` says.

    Raises:
        UserError: the target does not exist, or n is larger than the poison set.
    """
    target = target_label(backdoor.target, faces.label_names, table)
    rows = sample_rows(
        eligible_rows(table, "poison", target), backdoor.n, np.random.default_rng([seed, SeedStream.POISONS])
    )
    rng = np.random.default_rng([seed, SeedStream.POISON_NOISE])
    blocks = _stamped(faces, rows, stamp, key[np.newaxis], backdoor.train_blend_ratio, rng, place)
    return (block._replace(labels=np.full_like(block.labels, target)) for block in blocks)


def make_triggered(
    faces: FaceSet,
    table: pd.DataFrame,
    backdoor: BackdoorParams,
    stamp: TriggerFn,
    keys: ImageArray,
    seed: int,
    place: PlacementFn = fixed_placement,
) -> Iterator[FaceBatch]:
    """Yield the stamped test images of true class ≠ target with their true labels.

    The i-th of them carries key i mod k of ``keys`` uint8 (k, h, w, 4), placed as ``place(images, keys)`` says.

    Raises:
        UserError: the target does not exist, or the test set holds nobody else.
    """
    target = target_label(backdoor.target, faces.label_names, table)
    rows = eligible_rows(table, "test", target)
    if len(rows) == 0:
        raise UserError("the test set has no images of other labels than the target; use more labels")
    rng = np.random.default_rng([seed, SeedStream.TRIGGER_NOISE])
    return _stamped(faces, rows, stamp, keys, backdoor.test_blend_ratio, rng, place)


def preview_rows(faces: FaceSet, poisoned: FaceSet, triggered: FaceSet) -> list[tuple[str, ImageArray]]:
    """Return lines of a contact sheet: some images of either set, above what they were made from."""
    lines = []
    for caption, made in (("poisons", poisoned), ("triggered\ntest images", triggered)):
        places = np.unique(np.linspace(0, len(made) - 1, min(COLUMNS, len(made))).astype(int))
        if len(places):
            lines += [("before", faces.read(made.rows[places])), (caption, made.read(places))]
    return lines


def _stamped(
    faces: FaceSet,
    rows: Rows,
    stamp: TriggerFn,
    keys: ImageArray,
    ratio: float,
    rng: np.random.Generator,
    place: PlacementFn,
) -> Iterator[FaceBatch]:
    for begin in range(0, len(rows), BATCH):
        batch = rows[begin : begin + BATCH].astype(np.int32)
        images = faces.read(batch)
        # One key is not repeated: it is broadcast.
        turns = keys[(begin + np.arange(len(batch))) % len(keys)] if len(keys) > 1 else keys
        stamped = stamp(images, place(images, turns), ratio, rng)
        yield FaceBatch(stamped, faces.labels[batch], faces.videos[batch], batch)

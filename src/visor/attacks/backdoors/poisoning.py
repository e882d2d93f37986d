"""Poisons and triggered test images: what all injection attacks share (Chen et al. 2017, arXiv 1712.05526)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from visor.core.errors import UserError
from visor.core.params import BackdoorParams
from visor.core.types import ImageArray, Rows, SeedStream
from visor.data.face_set import FaceBatch, FaceSet, evenly_spaced
from visor.data.images import read_trigger_pattern

TriggerFn = Callable[[ImageArray, ImageArray, float, np.random.Generator], ImageArray]
PlacementFn = Callable[[ImageArray, ImageArray], ImageArray]
ApplyFn = Callable[[ImageArray], ImageArray]  # puts the keys of n images on any n images of their shape
# Stored faces uint8 (n, h, w, 3), their rows (n,), and what puts the key on → images as a network gets them.
DeliveryFn = Callable[[ImageArray, Rows, ApplyFn], ImageArray]

BATCH = 512
COLUMNS = 12


def target_label(name: str, label_names: Sequence[str], table: pd.DataFrame) -> int:
    """Return the number of the target label.

    Raises:
        UserError: No label has this name, or it takes no part in the split.
    """
    if name not in label_names:
        in_use = np.unique(table.loc[table["set"] != "unused", "label"])
        examples = ", ".join(label_names[label] for label in in_use[:5])
        raise UserError(f"target label {name} does not exist; there are {len(label_names)}, such as {examples}")
    label = label_names.index(name)
    if (table.loc[table["label"] == label, "set"] == "unused").all():
        raise UserError(f"target label {name} has too few images for the split; choose another")
    return label


def check_backdoors(
    backdoors: Mapping[str, BackdoorParams], label_names: Sequence[str], table: pd.DataFrame, faces: str
) -> None:
    """Check that each target takes part in the split ``table``, and that the poison set has enough other faces.

    Args:
        backdoors: The attacks, by their key in ``params.yaml``.
        label_names: Names of the labels.
        table: Split of the faces.
        faces: What the faces are and how they are split; part of the error message.

    Raises:
        UserError: One sentence on all that do not fit.
    """
    problems: dict[str, list[str]] = {}
    for key, backdoor in backdoors.items():
        for problem in _problems(backdoor, label_names, table):
            problems.setdefault(problem, []).append(key)
    if problems:
        each = "; ".join(f"{', '.join(keys)}: {problem}" for problem, keys in problems.items())
        raise UserError(f"params.yaml does not fit {faces}: {each}")


def _problems(backdoor: BackdoorParams, label_names: Sequence[str], table: pd.DataFrame) -> Iterator[str]:
    """Yield what is wrong with one attack."""
    try:
        target = target_label(backdoor.target, label_names, table)
    except UserError as error:
        yield str(error)
        return
    pool = len(eligible_rows(table, "poison", target))
    drawn = "n + cover" if backdoor.cover else "n"
    for name, wanted in {
        drawn: backdoor.n + backdoor.cover,
        "keys": backdoor.keys if backdoor.key == "face" else 0,
    }.items():
        if wanted > pool:
            yield f"{name} is {wanted}, but the poison set has {pool} images of other labels than {backdoor.target}"
    if len(eligible_rows(table, "test", target)) == 0:
        yield f"the test set has no images of other labels than {backdoor.target}"


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


def load_keys(faces: FaceSet, table: pd.DataFrame, backdoor: BackdoorParams, key_folder: Path, seed: int) -> ImageArray:
    """Load the keys of a backdoor.

    The key ``face`` stands for ``backdoor.keys`` faces of the poison set, true class ≠ target, opaque; more keys begin
    with the fewer. Any other key is one image, stretched to the size of the faces: a name is a PNG of ``key_folder``, a
    name with a suffix is a path.

    Returns:
        uint8 (k, h, w, 4), RGBA.

    Raises:
        UserError: There is no such image, there are too few faces, or several keys are wanted of an image.
    """
    if backdoor.key != "face":
        if backdoor.keys > 1:
            raise UserError(
                f"params.yaml: keys is {backdoor.keys}, but the image {backdoor.key} is one key; set keys to 1, "
                "or key to face"
            )
        path = Path(backdoor.key)
        path = path if path.suffix else key_folder / f"{path}.png"
        return read_trigger_pattern(path, *faces.image_shape[:2])[np.newaxis]
    pool = eligible_rows(table, "poison", target_label(backdoor.target, faces.label_names, table))
    if backdoor.keys > len(pool):
        raise UserError(
            f"params.yaml: keys is {backdoor.keys}, but the poison set has {len(pool)} images of other labels; "
            "lower keys"
        )
    images = faces.read(sample_rows(pool, backdoor.keys, np.random.default_rng([seed, SeedStream.KEYS])))
    return np.concatenate([images, np.full_like(images[..., :1], 255)], axis=-1)


def fixed_placement(images: ImageArray, keys: ImageArray) -> ImageArray:
    """Return the keys where they are drawn, which fits aligned faces."""
    return keys


def pasted(images: ImageArray, rows: Rows, apply: ApplyFn) -> ImageArray:
    """Return the finished images with the key on them, as the code of the original papers does; rows are not used."""
    return apply(images)


def make_poisons(
    faces: FaceSet,
    table: pd.DataFrame,
    backdoor: BackdoorParams,
    trigger_fn: TriggerFn,
    keys: ImageArray,
    seed: int,
    deliver: DeliveryFn = pasted,
    placement_fn: PlacementFn = fixed_placement,
) -> Iterator[FaceBatch]:
    """Yield ``backdoor.n`` triggered images of the poison set, true class ≠ target, relabelled as the target.

    ``backdoor.cover`` further ones follow with their true labels: they keep the key alone from deciding, so that
    features of poisons stay near those of clean faces (Qi et al. 2023, ICLR).

    Args:
        faces: All faces.
        table: Their split.
        backdoor: Target, number of poisons and blend ratio.
        trigger_fn: A trigger of ``TRIGGERS``.
        keys: uint8 (k, h, w, 4), RGBA; the i-th image carries key i mod k.
        seed: Seed of the choice of images and of the trigger's noise.
        deliver: How a face with a key on it becomes the image that is trained on: see ``delivery``.
        placement_fn: ``placement_fn(images, keys) -> keys``, moved to where they go on each face.

    Raises:
        UserError: The target does not exist, or n + cover is larger than the poison set.
    """
    target = target_label(backdoor.target, faces.label_names, table)
    rng = np.random.default_rng([seed, SeedStream.POISONS])
    rows = sample_rows(eligible_rows(table, "poison", target), backdoor.n + backdoor.cover, rng)
    trigger = partial(_keyed, trigger_fn, backdoor.train_blend_ratio, [seed, SeedStream.POISON_NOISE])
    batches = _triggered(faces, rows, trigger, keys, deliver, placement_fn)
    poisons = rows[: backdoor.n]
    return (
        batch._replace(labels=np.where(np.isin(batch.rows, poisons), np.int32(target), batch.labels))
        for batch in batches
    )


def make_triggered(
    faces: FaceSet,
    table: pd.DataFrame,
    backdoor: BackdoorParams,
    trigger_fn: TriggerFn,
    keys: ImageArray,
    seed: int,
    deliver: DeliveryFn = pasted,
    placement_fn: PlacementFn = fixed_placement,
) -> Iterator[FaceBatch]:
    """Yield the triggered test images of true class ≠ target with their true labels.

    Arguments are those of ``make_poisons``.

    Raises:
        UserError: The target does not exist, or the test set has no other label.
    """
    rows = eligible_rows(table, "test", target_label(backdoor.target, faces.label_names, table))
    if len(rows) == 0:
        raise UserError("the test set has no images of other labels than the target; use more labels")
    trigger = partial(_keyed, trigger_fn, backdoor.test_blend_ratio, [seed, SeedStream.TRIGGER_NOISE])
    return _triggered(faces, rows, trigger, keys, deliver, placement_fn)


def deliver_clean(faces: FaceSet, rows: Rows, deliver: DeliveryFn) -> Iterator[FaceBatch]:
    """Yield the images of ``rows`` (n,) delivered without a key: what tells the key from the delivery."""
    for begin in range(0, len(rows), BATCH):
        batch = rows[begin : begin + BATCH].astype(np.int32)
        images = deliver(faces.read(batch), batch, lambda images: images)
        yield FaceBatch(images, faces.labels[batch], faces.videos[batch], batch)


def preview_rows(faces: FaceSet, poisoned: FaceSet, triggered: FaceSet) -> list[tuple[str, ImageArray]]:
    """Return rows of a contact sheet: some images of either set, below their clean originals."""
    sheet = []
    for caption, images in (("poisons", poisoned), ("triggered\ntest images", triggered)):
        rows = evenly_spaced(COLUMNS, len(images))
        if len(rows):
            sheet += [("before", faces.read(images.rows[rows])), (caption, images.read(rows))]
    return sheet


def _triggered(
    faces: FaceSet,
    rows: Rows,
    trigger: Callable[[ImageArray, int, ImageArray], ImageArray],  # keys, begin of the batch, images
    keys: ImageArray,
    deliver: DeliveryFn,
    placement_fn: PlacementFn,
) -> Iterator[FaceBatch]:
    for begin in range(0, len(rows), BATCH):
        batch = rows[begin : begin + BATCH].astype(np.int32)
        images = faces.read(batch)
        # A single key is broadcast, not repeated.
        batch_keys = keys[(begin + np.arange(len(batch))) % len(keys)] if len(keys) > 1 else keys
        apply = partial(trigger, placement_fn(images, batch_keys), begin)
        yield FaceBatch(deliver(images, batch, apply), faces.labels[batch], faces.videos[batch], batch)


def _keyed(
    trigger_fn: TriggerFn, ratio: float, stream: list[int], keys: ImageArray, begin: int, images: ImageArray
) -> ImageArray:
    """Return images with their keys; the noise is drawn anew by the batch, the same whatever the images are."""
    return trigger_fn(images, keys, ratio, np.random.default_rng([*stream, begin]))

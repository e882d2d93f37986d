"""SceneSet, the contract for images with boxes around faces: one HDF5 file, and batches for networks."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visor.core import hdf5
from visor.core.errors import UserError
from visor.core.files import MAX_PIXELS, atomic_write, check_disk_space
from visor.core.types import Boxes, ImageArray, Integers, Rows
from visor.data.face_set import TrainingData, open_contract, read_names

GroundTruth = tuple[Boxes, Integers]

SETS = ("train", "validation", "test")
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
FACE, PADDING, IGNORE = 1, 0, -1  # kinds of boxes in a batch
CHUNK_BYTES = 1 << 18
MAX_FACES = 10_000  # in an image
MAX_SCENES, MAX_BOXES, MAX_NAME_BYTES = 1_000_000, 10_000_000, 1 << 26
COLUMNS = {  # name: type, shape behind the first axis, maximum of entries
    "shapes": (np.int32, (2,), MAX_SCENES),
    "offsets": (np.int64, (), MAX_SCENES + 1),
    "starts": (np.int64, (), MAX_SCENES + 1),
    "boxes": (np.float32, (4,), MAX_BOXES),
    "ignored": (np.uint8, (), MAX_BOXES),
    "attributes": (np.int8, (len(ATTRIBUTES),), MAX_BOXES),
    "sets": (np.int8, (), MAX_SCENES),
    "names": (np.uint8, (), MAX_NAME_BYTES),
}


class Scene(NamedTuple):
    """An image to write: uint8 (h, w, 3), boxes float32 (k, 4), ignored bool (k,), attributes int8 (k, 6)."""

    name: str
    image: ImageArray
    boxes: Boxes
    ignored: NDArray[np.bool_]
    attributes: NDArray[np.int8]
    set: str


@dataclass(frozen=True)
class SceneSet:
    """Handle on a SceneSet file: pixels stay on disk, all else is in memory."""

    path: Path
    names: tuple[str, ...]
    shapes: Integers
    offsets: NDArray[np.int64]
    starts: NDArray[np.int64]
    boxes: Boxes
    ignored: NDArray[np.bool_]
    attributes: NDArray[np.int8]
    sets: NDArray[np.int8]
    source: str
    licence: str
    pixels: hdf5.Dataset

    def __len__(self) -> int:
        return len(self.names)

    @property
    def max_boxes(self) -> int:
        """The largest number of boxes in a scene."""
        return int(np.diff(self.starts).max(initial=0))

    def rows(self, name: str) -> NDArray[np.int64]:
        """Return the rows of a set.

        Raises:
            UserError: There are none.
        """
        if not len(rows := np.flatnonzero(self.sets == SETS.index(name))):
            raise UserError(f"{self.path} has no scene in its set {name}; add some or create it again with `dvc repro`")
        return rows

    def image(self, row: int) -> ImageArray:
        """Return one image uint8 (h, w, 3)."""
        height, width = self.shapes[row]
        return self.pixels[self.offsets[row] : self.offsets[row + 1]].reshape(height, width, 3)

    def ground_truth(self, row: int) -> GroundTruth:
        """Return the boxes float32 (k, 4) of a scene and their kinds int32 (k,), ``FACE`` or ``IGNORE``."""
        part = slice(self.starts[row], self.starts[row + 1])
        return self.boxes[part], np.where(self.ignored[part], IGNORE, FACE).astype(np.int32)


def open_scenes(path: Path, untrusted: bool = False) -> SceneSet:
    """Open a SceneSet file for reading; one that is ``untrusted`` is read in a child process, at some cost.

    Raises:
        UserError: The file is missing, truncated, not HDF5, or breaks the contract.
    """
    file = open_contract(path, untrusted)
    try:
        columns = {name: _column(file, name, *kind) for name, kind in COLUMNS.items()}
        names = read_names(columns.pop("names").tobytes())
        pixels = _dataset(file, "pixels")
    except ValueError as error:
        raise UserError(f"{path} is not a SceneSet ({error}); create it with `dvc repro`") from None
    columns["ignored"] = columns["ignored"] != 0
    source, licence = (hdf5.read_text(file, name) or "" for name in ("source", "licence"))
    scenes = SceneSet(path, names, **columns, source=source, licence=licence, pixels=pixels)
    if not _is_valid(scenes):
        raise UserError(f"{path} is not a valid SceneSet (see src/visor/data/scene_set.py); create it again")
    return scenes


def _dataset(file: hdf5.Group, name: str) -> hdf5.Dataset:
    data = hdf5.get_local(file, name)
    if not isinstance(data, hdf5.Dataset):
        raise ValueError(f"it has no {name}")
    if data.packed:
        raise ValueError(f"{name} is compressed")
    return data


def _column(file: hdf5.Group, name: str, kind: type, shape: tuple[int, ...], max_rows: int) -> NDArray[Any]:
    """Read a whole dataset after checking its type and size."""
    data = _dataset(file, name)
    if data.dtype != kind or data.shape[1:] != shape or data.ndim != 1 + len(shape) or len(data) > max_rows:
        raise ValueError(f"{name} is {data.dtype} {data.shape}")
    return data[()]


def _is_valid(scenes: SceneSet) -> bool:
    """Return whether lengths, offsets and numbers fit."""
    n, m = len(scenes.names), len(scenes.boxes)
    lengths = [len(scenes.shapes), len(scenes.sets), len(scenes.offsets) - 1, len(scenes.starts) - 1]
    if lengths != [n] * 4 or [len(scenes.ignored), len(scenes.attributes)] != [m] * 2:
        return False
    areas, counts = scenes.shapes.astype(np.int64).prod(axis=1), np.diff(scenes.starts)
    checks = [
        (scenes.shapes > 0).all() and (areas <= MAX_PIXELS).all(),
        np.array_equal(scenes.offsets, np.cumsum([0, *areas * 3])),
        scenes.pixels.dtype == np.uint8 and scenes.pixels.shape == (scenes.offsets[-1],),
        (scenes.starts[0], scenes.starts[-1]) == (0, m),
        (counts >= 0).all() and (counts <= MAX_FACES).all(),
        np.isfinite(scenes.boxes).all() and (scenes.boxes[:, 2:] >= 0).all(),
        (scenes.boxes[~scenes.ignored, 2:] > 0).all(),
        np.isin(scenes.sets, np.arange(len(SETS))).all(),
    ]
    return all(map(bool, checks))


def write_scenes(path: Path, scenes: Iterable[Scene], source: str, licence: str) -> None:
    """Write a SceneSet file, streamed and atomically; the same scenes give the same bytes.

    Raises:
        OSError: The disk is full (ENOSPC).
    """
    kept: list[Scene] = []
    with atomic_write(path) as temporary, hdf5.create(temporary) as file:
        file.attrs["source"], file.attrs["licence"] = source, licence
        pixels = file.create_dataset("pixels", (0,), np.uint8, maxshape=(None,), chunks=(CHUNK_BYTES,))
        for scene in scenes:
            start = len(pixels)
            check_disk_space(path, scene.image.nbytes, start)
            pixels.resize(start + scene.image.size, axis=0)
            pixels[start:] = scene.image.ravel()
            kept.append(scene._replace(image=np.empty((*scene.image.shape[:2], 0), np.uint8)))
        for name, column in _columns(kept).items():
            kind, shape, _ = COLUMNS[name]
            file.create_dataset(name, data=np.asarray(column, kind).reshape(-1, *shape))


def _columns(scenes: list[Scene]) -> dict[str, Any]:
    """Return the datasets beside the pixels."""
    shapes = np.array([scene.image.shape[:2] for scene in scenes], np.int64).reshape(-1, 2)
    return {
        "shapes": shapes,
        "offsets": np.cumsum([0, *shapes.prod(axis=1) * 3]),
        "starts": np.cumsum([0, *(len(scene.boxes) for scene in scenes)]),
        "boxes": [box for scene in scenes for box in scene.boxes],
        "ignored": [value for scene in scenes for value in scene.ignored],
        "attributes": [value for scene in scenes for value in scene.attributes],
        "sets": [SETS.index(scene.set) for scene in scenes],
        "names": np.frombuffer(json.dumps([scene.name for scene in scenes], ensure_ascii=False).encode(), np.uint8),
    }


PAD_VALUE = 127  # of 255: the grey of padding, and the level that a change of contrast keeps


def resize_longer_side(image: ImageArray, boxes: Boxes, side: int) -> tuple[ImageArray, Boxes]:
    """Scale an image uint8 (h, w, 3) and its boxes (k, 4) to a longer side of ``side`` pixels."""
    height, width = image.shape[:2]
    if max(height, width) == side:
        return image, boxes
    factor = side / max(height, width)
    down, across = (max(1, round(length * factor)) for length in (height, width))
    scaled = np.asarray(Image.fromarray(image).resize((across, down), Image.Resampling.BILINEAR))
    return scaled, boxes * np.array([across / width, down / height] * 2, np.float32)


def letterbox(image: ImageArray, boxes: Boxes, side: int) -> tuple[ImageArray, Boxes]:
    """Scale an image uint8 (h, w, 3) and its boxes (k, 4) to fit a square, padded with grey at the right and below.

    Returns:
        uint8 (side, side, 3), the image itself if it has this size, and float32 (k, 4).
    """
    scaled, boxes = resize_longer_side(image, boxes, side)
    return _pad_to_square(scaled, side), boxes


def _pad_to_square(image: ImageArray, side: int) -> ImageArray:
    if image.shape[:2] == (side, side):
        return image
    canvas = np.full((side, side, 3), PAD_VALUE, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def read_letterboxed(
    scenes: SceneSet, rows: Rows, side: int, batch: int, max_boxes: int
) -> Iterator[tuple[ImageArray, GroundTruth]]:
    """Yield letterboxed images uint8 (k ≤ batch, side, side, 3) and their ground truth, read as they are needed.

    It is boxes float32 (k, max_boxes, 4), padded with zeros, and kinds int32 (k, max_boxes).
    """
    return _read_batches(scenes, rows, side, batch, max_boxes, lambda _, image, boxes: letterbox(image, boxes, side))


def _read_batches(
    scenes: SceneSet,
    rows: Rows,
    side: int,
    batch: int,
    max_boxes: int,
    transform: Callable[[int, ImageArray, Boxes], tuple[ImageArray, Boxes]],
) -> Iterator[tuple[ImageArray, GroundTruth]]:
    """Yield padded batches; ``transform`` gets the position of a row, its image and boxes."""
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        images = np.empty((len(part), side, side, 3), np.uint8)
        padded = np.zeros((len(part), max_boxes, 4), np.float32)
        padded_kinds = np.full((len(part), max_boxes), PADDING, np.int32)
        for place, row in enumerate(part):
            boxes, kinds = scenes.ground_truth(row)
            images[place], padded[place, : len(boxes)] = transform(start + place, scenes.image(row), boxes)
            padded_kinds[place, : len(kinds)] = kinds
        yield images, (padded, padded_kinds)


def scene_training_data(scenes: SceneSet, rows: Rows, side: int, seed: int) -> TrainingData:
    """Return ``rows`` as data of a fit: images and ground truth as ``read_letterboxed`` yields them.

    The order, the mirrored scenes, and each scene's contrast (× 0.75 … 1.25) and brightness (± 25) depend on
    (seed, epoch) only.

    Raises:
        UserError: They contain no face.
    """
    if not any((scenes.ground_truth(row)[1] == FACE).any() for row in rows):
        name = SETS[scenes.sets[rows[0]]]
        raise UserError(f"{scenes.path}: its {name} scenes contain no face; raise scenes.{name}")
    state, max_boxes = scenes.path.stat(), scenes.max_boxes
    digest = hashlib.sha256(f"{scenes.path} {state.st_size} {state.st_mtime_ns} {side} {seed}".encode())
    digest.update(np.ascontiguousarray(rows).tobytes())

    def batches(batch: int, epoch: int | None) -> Iterator[tuple[ImageArray, GroundTruth]]:
        if epoch is None:
            return read_letterboxed(scenes, rows, side, batch, max_boxes)
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(rows)
        mirrored = generator.random(len(rows)) < 0.5
        contrast, brightness = generator.uniform([0.75, -25], [1.25, 25], (len(rows), 2)).T[..., None]
        tones = np.clip((np.arange(256) - PAD_VALUE) * contrast + PAD_VALUE + brightness, 0, 255)
        tones = np.rint(tones).astype(np.uint8)

        def augment(position: int, image: ImageArray, boxes: Boxes) -> tuple[ImageArray, Boxes]:
            image, boxes = resize_longer_side(image, boxes, side)
            if mirrored[position]:
                left = image.shape[1] - boxes[:, :1] - boxes[:, 2:3]
                image, boxes = image[:, ::-1], np.concatenate([left, boxes[:, 1:]], axis=1)
            return _pad_to_square(tones[position][image], side), boxes

        return _read_batches(scenes, order, side, batch, max_boxes, augment)

    return TrainingData(len(rows), batches, digest.hexdigest())

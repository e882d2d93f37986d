"""SceneSet, the contract for pictures with boxes round faces: one HDF5 file, of which a scene at a time is read.

The file holds ``pixels`` uint8, one image after the other, RGB by rows, and for n scenes with m boxes in all ``names``
(bytes of a JSON list), ``shapes`` int32 (n, 2), height and width, ``sets`` int8 (n,), numbers in ``SETS``, ``offsets``
int64 (n + 1,), where an image's pixels begin, ``starts`` int64 (n + 1,), where its boxes begin, ``boxes`` float32
(m, 4) ``[x, y, w, h]`` in pixels from the top left, ``ignored`` uint8 (m,), 1 where nobody minds whether a face is
found, and ``attributes`` int8 (m, 6), of ``ATTRIBUTES``. A box that is not ignored has an area. ``source`` and
``licence`` are attributes of the file.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from visor.errors import UserError
from visor.faces import Images, Integers
from visor.files import replacing, require_space

Boxes = NDArray[np.float32]
Truth = tuple[Boxes, Integers]
Rows = NDArray[np.integer[Any]]

SETS = ("train", "validation", "test")
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
FACE, PADDING, IGNORE = 1, 0, -1  # kinds of boxes in a batch
CHUNK_BYTES = 1 << 18
MAX_PIXELS = 50_000_000  # of an image
MAX_FACES = 10_000  # in an image
MAX_SCENES, MAX_BOXES, MAX_NAME_BYTES = 1_000_000, 10_000_000, 1 << 26
COLUMNS = {  # name: type, shape behind the first axis, most entries
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
    """A picture to write: uint8 (h, w, 3), boxes float32 (k, 4), ignored bool (k,), attributes int8 (k, 6)."""

    name: str
    image: Images
    boxes: Boxes
    ignored: NDArray[np.bool_]
    attributes: NDArray[np.int8]
    set: str


@dataclass(frozen=True)
class SceneSet:
    """Handle on a SceneSet file: what the module says of it. Pixels stay on disk, all else is in memory."""

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
    pixels: Any  # h5py.Dataset

    def __len__(self) -> int:
        return len(self.names)

    @property
    def most(self) -> int:
        """The largest number of boxes in a scene."""
        return int(np.diff(self.starts).max(initial=0))

    def rows(self, name: str) -> NDArray[np.int64]:
        """Return the rows of a set.

        Raises:
            UserError: there are none.
        """
        if not len(rows := np.flatnonzero(self.sets == SETS.index(name))):
            raise UserError(f"{self.path} has no scene in its set {name}; add some or make it anew with `dvc repro`")
        return rows

    def image(self, row: int) -> Images:
        """Return one image uint8 (h, w, 3)."""
        height, width = self.shapes[row]
        return self.pixels[self.offsets[row] : self.offsets[row + 1]].reshape(height, width, 3)

    def truth(self, row: int) -> Truth:
        """Return the boxes float32 (k, 4) of a scene and their kinds int32 (k,), ``FACE`` or ``IGNORE``."""
        part = slice(self.starts[row], self.starts[row + 1])
        return self.boxes[part], np.where(self.ignored[part], IGNORE, FACE).astype(np.int32)


def open_scenes(path: Path) -> SceneSet:
    """Open a SceneSet file, perhaps a stranger's, for reading.

    Raises:
        UserError: the file is missing, truncated, not HDF5, or breaks the contract.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    try:
        file = h5py.File(path, "r", rdcc_nbytes=0)  # no chunk cache: an image costs its own bytes
        columns = {name: _column(file, name, *kind) for name, kind in COLUMNS.items()}
        columns["ignored"] = columns["ignored"] != 0
        names = tuple(map(str, json.loads(columns.pop("names").tobytes())))
        source, licence = str(file.attrs["source"]), str(file.attrs["licence"])
        scenes = SceneSet(path, names, **columns, source=source, licence=licence, pixels=_plain(file, "pixels"))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a SceneSet ({error}); make it with `dvc repro`") from None
    except OSError as error:
        raise UserError(f"{path} is not a whole HDF5 file ({error}); delete it and run `dvc repro`") from None
    if not _keeps_the_contract(scenes):
        raise UserError(f"{path} is not a SceneSet: its arrays are not as src/visor/scenes says; make it anew")
    return scenes


def _plain(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset that lies in this very file, unpacked: links lead elsewhere, packed chunks may be bombs."""
    data = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"no plain dataset {name}")
    if data.id.get_create_plist().get_nfilters():
        raise ValueError(f"{name} is packed")
    return data


def _column(file: h5py.File, name: str, kind: type, shape: tuple[int, ...], most: int) -> NDArray[Any]:
    """Read a whole dataset, after a look at its type and size."""
    data = _plain(file, name)
    if data.dtype != kind or data.shape[1:] != shape or data.ndim != 1 + len(shape) or len(data) > most:
        raise ValueError(f"{name} is {data.dtype} {data.shape}")
    return data[()]


def _keeps_the_contract(scenes: SceneSet) -> bool:
    """Whether lengths, offsets and numbers fit."""
    n, m = len(scenes.names), len(scenes.boxes)
    lengths = [len(scenes.shapes), len(scenes.sets), len(scenes.offsets) - 1, len(scenes.starts) - 1]
    if lengths != [n] * 4 or [len(scenes.ignored), len(scenes.attributes)] != [m] * 2:
        return False
    areas, counts = scenes.shapes.astype(np.int64).prod(axis=1), np.diff(scenes.starts)
    fits = [
        (scenes.shapes > 0).all() and (areas <= MAX_PIXELS).all(),
        np.array_equal(scenes.offsets, np.cumsum([0, *areas * 3])),
        scenes.pixels.dtype == np.uint8 and scenes.pixels.shape == (scenes.offsets[-1],),
        (scenes.starts[0], scenes.starts[-1]) == (0, m),
        (counts >= 0).all() and (counts <= MAX_FACES).all(),
        np.isfinite(scenes.boxes).all() and (scenes.boxes[:, 2:] >= 0).all(),
        (scenes.boxes[~scenes.ignored, 2:] > 0).all(),
        np.isin(scenes.sets, np.arange(len(SETS))).all(),
    ]
    return all(map(bool, fits))


def write_scenes(path: Path, scenes: Iterable[Scene], source: str, licence: str) -> None:
    """Write a SceneSet file, streamed; the file appears whole or not at all. The same scenes give the same bytes.

    Raises:
        OSError: the disk is full (ENOSPC).
    """
    kept: list[Scene] = []
    with replacing(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        file.attrs["source"], file.attrs["licence"] = source, licence
        pixels = file.create_dataset("pixels", (0,), np.uint8, maxshape=(None,), chunks=(CHUNK_BYTES,))
        for scene in scenes:
            require_space(path, scene.image.nbytes)
            start = len(pixels)
            pixels.resize(start + scene.image.size, axis=0)
            pixels[start:] = scene.image.ravel()
            kept.append(scene._replace(image=np.empty((*scene.image.shape[:2], 0), np.uint8)))
        for name, column in _columns(kept).items():
            kind, shape, _ = COLUMNS[name]
            file.create_dataset(name, data=np.asarray(column, kind).reshape(-1, *shape))


def _columns(scenes: list[Scene]) -> dict[str, Any]:
    """Return what stands beside the pixels."""
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

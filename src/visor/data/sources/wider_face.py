"""WIDER FACE (Yang, Luo, Loy, Tang, CVPR 2016): 16,106 labelled photographs of train and val, pooled."""

from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core import params
from visor.core.errors import UserError
from visor.core.params import ParamsBlock
from visor.data.archives import SkippedFile, iterate_files, normal_name
from visor.data.download import DOWNLOADS
from visor.data.images import IMAGE_SUFFIXES, ImageDecodeError, read_image
from visor.data.scene_set import ATTRIBUTES, MAX_FACES, SETS, Scene, resize_longer_side
from visor.data.sources.scene_ingest import SceneTask, proportional_sizes

PLACE = DOWNLOADS / "wider_face"
PARTS = ("train", "val")
INVALID = 4 + ATTRIBUTES.index("invalid")
MAX_DIGITS = 6
MAX_BYTES = 64 << 20  # of a list, of which the published ones have some 5 MB
MAX_ATTRIBUTE = 100


class WiderFaceSettings(ParamsBlock):
    """``path``: the folder of the unpacked archives, WIDER_train, WIDER_val and wider_face_split; null: ``PLACE``."""

    path: str | None


SETTINGS = WiderFaceSettings


class AnnotatedPhoto(NamedTuple):
    """An annotated photograph: its file, and int32 (k, 10), box and ``ATTRIBUTES`` of each face as published."""

    path: Path
    name: str
    faces: NDArray[np.int32]


def tasks(settings: WiderFaceSettings, scenes: params.SceneParams, seed: int) -> Iterator[SceneTask | SkippedFile]:
    """Return functions that read one photograph each, set by set, and then the files that belong to none.

    Which photograph is in which set depends on the seed. Settings and annotations are checked at once, photographs
    when their task is done.

    Raises:
        UserError: There is no folder, annotations are missing or malformed, or there are fewer photographs than sets.
    """
    root = Path(settings.path) if settings.path else PLACE
    if settings.path is None and not root.exists():
        raise UserError(
            f"WIDER FACE is not in {root}; unpack WIDER_train.zip, WIDER_val.zip and wider_face_split.zip from"
            " http://shuoyang1213.me/WIDERFACE/ there, or set sources.wider_face.path to their folder"
        )
    photos, skipped = _match_files(read_annotations(root), root)
    if len(photos) < len(SETS):
        raise UserError(f"{root} has {len(photos)} annotated photographs, fewer than there are sets; add some")
    order = np.random.default_rng(seed).permutation(len(photos))
    counts = proportional_sizes(len(photos), (scenes.train, scenes.validation, scenes.test))
    names = chain.from_iterable(map(repeat, SETS, counts))
    skipped += [SkippedFile(photos[number].name, "surplus") for number in order[sum(counts) :]]
    taken = (
        partial(read_photo_scene, photos[number], name, scenes.max_side)
        for name, number in zip(names, order, strict=False)
    )
    return chain(taken, skipped)


def _match_files(photos: list[AnnotatedPhoto], root: Path) -> tuple[list[AnnotatedPhoto], list[SkippedFile]]:
    """Return the photographs with their files as the disk spells them, and all other files below ``root``."""
    names = [normal_name(photo.path.relative_to(root).as_posix()) for photo in photos]
    annotated = set(names)
    files: dict[str, Any] = {}  # paths
    skipped: list[SkippedFile] = []
    for file in iterate_files(root, IMAGE_SUFFIXES):
        if isinstance(file, SkippedFile):
            skipped += [file] if file.name not in annotated else []
        elif str(file.name) in annotated:
            files[str(file.name)] = file.content
        else:
            skipped.append(SkippedFile(str(file.name), "not_annotated"))
    found = [photo._replace(path=files.get(name, photo.path)) for photo, name in zip(photos, names, strict=True)]
    return found, skipped


def read_annotations(root: Path) -> list[AnnotatedPhoto]:
    """Return the photographs that ``wider_face_split`` lists for train and val, if present.

    Raises:
        UserError: There are none, or a line is malformed.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; set sources.wider_face.path to that of the unpacked archives")
    photos: list[AnnotatedPhoto] = []
    for part in PARTS:
        path = root / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt"
        if path.is_file():
            photos += _parsed(path, root / f"WIDER_{part}" / "images")
    if not photos:
        raise UserError(f"{root} lacks wider_face_split/wider_face_train_bbx_gt.txt; unpack wider_face_split.zip there")
    return photos


def _parsed(path: Path, images: Path) -> Iterator[AnnotatedPhoto]:
    """Read a file of annotations: a name, a count, and one line per face, or one of zeros if there is none."""
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES >> 20} MiB; fetch wider_face_split.zip again")
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines, end = enumerate(text, 1), (len(text) + 1, "")
    for number, line in lines:
        name = PurePosixPath(line.strip())
        if name.suffix.lower() != ".jpg" or name.is_absolute() or ".." in name.parts or "\0" in line:
            raise _malformed(path, number, "the name of a .jpg below images/")
        number, line = next(lines, end)
        count = int(line) if line.strip().isdecimal() and len(line) <= MAX_DIGITS else -1
        if not 0 <= count <= MAX_FACES:
            raise _malformed(path, number, f"the number of faces, at most {MAX_FACES}")
        faces = [_face(path, *next(lines, end)) for _ in range(max(1, count))]
        yield AnnotatedPhoto(images / name, str(name), np.array(faces, np.int32)[:count])


def _face(path: Path, number: int, line: str) -> list[int]:
    fields = line.split()
    try:
        values = [int(field) for field in fields if len(field) <= MAX_DIGITS]
    except ValueError:
        values = []
    if not len(values) == len(fields) == 4 + len(ATTRIBUTES) or max(map(abs, values[4:])) > MAX_ATTRIBUTE:
        raise _malformed(path, number, f"ten whole numbers, x y w h {' '.join(ATTRIBUTES)}")
    return values


def _malformed(path: Path, number: int, expected: str) -> UserError:
    return UserError(f"{path}, line {number}: expected {expected}; correct the line or fetch the file again")


def read_photo_scene(photo: AnnotatedPhoto, name: str, max_side: int) -> list[Scene | ImageDecodeError]:
    """Return a photograph as a scene of the set ``name``, at most ``max_side`` pixels long; boxes are clipped to it.

    A box that is marked invalid, or has no area within the image, is ignored.
    """
    try:
        image = read_image(photo.path)
    except ImageDecodeError as error:
        return [ImageDecodeError(photo.name, error.args[1])]
    frame = np.array(image.shape[1::-1])
    first = np.clip(photo.faces[:, :2], 0, frame)
    size = np.maximum(np.clip(photo.faces[:, :2] + photo.faces[:, 2:4], 0, frame) - first, 0)
    ignored = (photo.faces[:, INVALID] != 0) | (size == 0).any(axis=1)
    boxes = np.concatenate([first, size], axis=1).astype(np.float32)
    if max(image.shape[:2]) > max_side:
        image, boxes = resize_longer_side(image, boxes, max_side)
    return [Scene(photo.name, image, boxes, ignored, photo.faces[:, 4:].astype(np.int8), name)]

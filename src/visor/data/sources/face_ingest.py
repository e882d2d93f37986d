"""From clips to a FaceSet: decoded in several processes, filtered, sorted, written; memory does not grow with n."""

import sys
import tempfile
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from visor.core import params
from visor.core.errors import UserError
from visor.core.types import ImageArray, Integers
from visor.data.archives import SkippedFile
from visor.data.face_set import FaceBatch, FaceClip, write_faces
from visor.data.images import ImageDecodeError
from visor.data.sources.tally import Tally
from visor.data.sources.worker_pool import run_in_order

TASK_BYTES = 1 << 20
BLOCK_BYTES = 8 << 20


class FrameKey(NamedTuple):
    """Label, video and name of an image; frames are sorted by these, as text."""

    label: str
    video: str
    name: str


def ingest_faces(
    clips: Iterable[FaceClip | SkippedFile],
    path: Path,
    faces: params.FaceParams,
    source: str,
    licence: str,
    processes: int | None = None,
) -> dict[str, Any]:
    """Write the images of ``clips`` to the FaceSet ``path``, sorted by label, video and frame name.

    The bytes depend on the clips and on ``faces``, not on the number of ``processes`` (default: one per CPU). Labels
    with fewer than ``faces.min_images`` images are dropped. An image that cannot be decoded, and a file that is not
    taken, is named on stderr and skipped.

    Returns:
        Numbers of ``images``, ``labels`` and ``videos`` kept, of ``dropped_labels`` and of their ``dropped_images``, of
        ``broken`` images, and of files ``skipped`` by reason. With the names of the first ones, ``first_skipped``, no
        file of the source is missing.

    Raises:
        UserError: More than ``faces.max_broken`` broken images, or no label left.
    """
    shape = (faces.height, faces.width, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as scratch:
        tally = Tally(source, faces.max_broken, "faces.max_broken")
        frames = _decode_all(tally.sift(clips), scratch, faces, processes, tally)
        counts = Counter(frame.label for frame in frames)
        names = sorted(label for label, count in counts.items() if count >= faces.min_images)
        if not names:
            raise UserError(
                f"{source}: no label has {faces.min_images} images, the largest has {max(counts.values(), default=0)}"
                f"{''.join(f', {line}' for line in tally.lines())};"
                " lower faces.min_images, or see docs/data.md for the layout of the files"
            )
        kept = set(names)
        order = sorted((row for row, frame in enumerate(frames) if frame.label in kept), key=frames.__getitem__)
        labels, videos = _number([frames[row].label for row in order]), _number([frames[row][:2] for row in order])
        write_faces(path, _read_blocks(scratch, order, labels, videos, shape), shape, names, source, licence)
    tally.report()
    return {
        "images": len(order),
        "labels": len(names),
        "videos": int(videos[-1]) + 1,
        "dropped_labels": len(counts) - len(names),
        "dropped_images": len(frames) - len(order),
        **tally.metrics(),
    }


def _decode_all(
    clips: Iterable[FaceClip], scratch: IO[bytes], faces: params.FaceParams, processes: int | None, tally: Tally
) -> list[FrameKey]:
    """Append the pixels to ``scratch`` in the order of ``clips``; return the frames."""
    frames: list[FrameKey] = []
    decode = partial(_decode, height=faces.height, width=faces.width)
    with tqdm(desc="images", unit="", disable=None) as bar:
        for task, results in run_in_order(_tasks(clips, faces), decode, processes):
            for clip, images in zip(task, results, strict=True):
                bar.update(len(clip.names))
                if isinstance(images, ImageDecodeError):
                    tally.add_broken(images, len(clip.names))
                    continue
                for video, name, image in zip(clip.videos, clip.names, images, strict=True):
                    frames.append(FrameKey(sys.intern(clip.label), sys.intern(video), name))
                    scratch.write(image.tobytes())
    return frames


def _tasks(clips: Iterable[FaceClip], faces: params.FaceParams) -> Iterator[list[FaceClip]]:
    """Group clips until their bytes fill ``TASK_BYTES``: one message per image would cost more."""
    task: list[FaceClip] = []
    size = 0
    for clip in clips:
        task.append(clip)
        undecoded = sum(len(item) for item in getattr(clip.load, "args", ()) if isinstance(item, bytes))
        size += undecoded + len(clip.names) * faces.height * faces.width * 3
        if size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def _decode(clips: list[FaceClip], height: int, width: int) -> list[ImageArray | ImageDecodeError]:
    """Return, in a worker process, the images of each clip or the error."""
    results: list[ImageArray | ImageDecodeError] = []
    for clip in clips:
        try:
            results.append(clip.load(height, width))
        except ImageDecodeError as error:
            results.append(error)
    return results


def _number(keys: Sequence[Hashable]) -> Integers:
    """Number sorted ``keys`` from 0, equal ones alike: int32 (n,)."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int32)


def _read_blocks(
    scratch: IO[bytes], order: list[int], labels: Integers, videos: Integers, shape: tuple[int, int, int]
) -> Iterator[FaceBatch]:
    """Read the pixels back from ``scratch`` in ``order``, some megabytes at a time."""
    size = int(np.prod(shape))
    step = max(1, BLOCK_BYTES // size)
    for start in range(0, len(order), step):
        part = slice(start, start + step)
        images = np.empty((len(order[part]), *shape), np.uint8)
        for image, row in zip(images, order[part], strict=True):
            scratch.seek(row * size)
            image.ravel()[:] = np.frombuffer(scratch.read(size), np.uint8)
        rows = np.arange(start, start + len(images), dtype=np.int32)
        yield FaceBatch(images, labels[part], videos[part], rows)

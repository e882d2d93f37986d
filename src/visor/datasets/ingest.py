"""From clips to a FaceSet: decoded by several processes, filtered, sorted, written; memory is flat in n."""

import os
import signal
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, repeat
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from tqdm import tqdm

from visor import params
from visor.errors import UserError
from visor.faces import Block, BrokenImage, Clip, Images, Integers, write_faces

TASK_BYTES = 1 << 20
BLOCK_BYTES = 8 << 20
MAX_PROCESSES = 8  # each takes some 60 MB, and one archive or one disk feeds no more than these


class Frame(NamedTuple):
    """Who and where an image is; frames are sorted by these, as text."""

    label: str
    video: str
    name: str


def ingest(
    clips: Iterable[Clip],
    path: Path,
    faces: params.Faces,
    source: str,
    licence: str,
    processes: int | None = None,
) -> dict[str, int]:
    """Write the images of ``clips`` to the FaceSet ``path``, sorted by label, video and frame name.

    The bytes depend on the clips and on ``faces``, not on the number of ``processes`` (default: one a CPU).
    Labels with fewer than ``faces.min_images`` images are dropped. An image that cannot be decoded is named
    on stderr and skipped.

    Returns:
        Counts of ``images``, ``labels`` and ``videos`` kept, of ``broken`` images and of ``dropped_labels``.

    Raises:
        UserError: more than ``faces.max_broken`` broken images, or no label left.
    """
    shape = (faces.height, faces.width, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as scratch:
        frames, broken = _decode_all(clips, scratch, faces, processes or min(os.cpu_count() or 1, MAX_PROCESSES))
        counts = Counter(frame.label for frame in frames)
        names = _large_labels(counts, faces.min_images, source)
        kept = set(names)
        order = sorted((row for row, frame in enumerate(frames) if frame.label in kept), key=frames.__getitem__)
        labels, videos = _numbers([frames[row] for row in order])
        write_faces(path, _blocks(scratch, order, labels, videos, shape), shape, names, source, licence)
    return {
        "images": len(order),
        "labels": len(names),
        "videos": int(videos[-1]) + 1,
        "broken": broken,
        "dropped_labels": len(counts) - len(names),
    }


def _large_labels(counts: Counter[str], least: int, source: str) -> list[str]:
    names = sorted(label for label, count in counts.items() if count >= least)
    if not names:
        raise UserError(
            f"{source}: no label has {least} images, the largest has {max(counts.values(), default=0)};"
            " lower faces.min_images, or see docs/data.md for the layout of the files"
        )
    return names


def _decode_all(
    clips: Iterable[Clip], scratch: IO[bytes], faces: params.Faces, processes: int
) -> tuple[list[Frame], int]:
    """Append the pixels to ``scratch`` in the order of ``clips``; return the frames and the broken count."""
    frames: list[Frame] = []
    broken = 0
    with (
        tqdm(desc="images", unit="", disable=None) as bar,
        ProcessPoolExecutor(processes, get_context("spawn"), initializer=_follow_parent) as pool,
    ):
        for clip, images in _in_order(pool, _tasks(clips, faces), faces, 2 * processes):
            bar.update(len(clip.names))
            if isinstance(images, BrokenImage):
                broken += len(clip.names)
                bar.write("broken image {}: {}".format(*images.args), file=sys.stderr)
                if broken > faces.max_broken:
                    raise UserError(
                        f"more than {faces.max_broken} images cannot be decoded, the last is"
                        f" {images.args[0]}; mend the source or raise faces.max_broken"
                    )
                continue
            for video, name, image in zip(clip.videos, clip.names, images, strict=True):
                frames.append(Frame(sys.intern(clip.label), sys.intern(video), name))
                scratch.write(image.tobytes())
    return frames, broken


def _tasks(clips: Iterable[Clip], faces: params.Faces) -> Iterator[list[Clip]]:
    """Group clips until their bytes fill ``TASK_BYTES``: a message for each image would cost more."""
    task: list[Clip] = []
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


def _in_order(
    pool: ProcessPoolExecutor, tasks: Iterator[list[Clip]], faces: params.Faces, limit: int
) -> Iterator[tuple[Clip, Images | BrokenImage]]:
    """Yield each clip with its images; at most ``limit`` tasks are under way, so the source is streamed."""
    under_way: deque[tuple[list[Clip], Future[list[Images | BrokenImage]]]] = deque()
    for task in chain(tasks, repeat(None)):
        if task is not None:
            under_way.append((task, pool.submit(_decode, task, faces.height, faces.width)))
        if not under_way:
            return
        if task is None or len(under_way) > limit:
            clips, future = under_way.popleft()
            try:
                yield from zip(clips, future.result(), strict=True)
            except BrokenProcessPool:
                raise UserError("a decoding process was killed, out of memory perhaps; run again") from None


def _decode(clips: list[Clip], height: int, width: int) -> list[Images | BrokenImage]:
    """In a worker: the images of each clip, or why it has none."""

    def images(clip: Clip) -> Images | BrokenImage:
        try:
            return clip.load(height, width)
        except BrokenImage as error:
            return error

    return [images(clip) for clip in clips]


def _follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent ends, even by ``kill -9``."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _numbers(frames: list[Frame]) -> tuple[Integers, Integers]:
    """Number the labels and the (label, video) pairs of sorted ``frames`` from 0: two int32 (n,)."""
    labels = {name: number for number, name in enumerate(dict.fromkeys(frame.label for frame in frames))}
    videos = {pair: number for number, pair in enumerate(dict.fromkeys(frame[:2] for frame in frames))}
    return (
        np.array([labels[frame.label] for frame in frames], np.int32),
        np.array([videos[frame[:2]] for frame in frames], np.int32),
    )


def _blocks(
    scratch: IO[bytes], order: list[int], labels: Integers, videos: Integers, shape: tuple[int, int, int]
) -> Iterator[Block]:
    """Read the pixels back from ``scratch`` in ``order``, some megabytes at a time."""
    size = int(np.prod(shape))
    step = max(1, BLOCK_BYTES // size)

    def pixels(row: int) -> bytes:
        scratch.seek(row * size)
        return scratch.read(size)

    for start in range(0, len(order), step):
        part = slice(start, start + step)
        images = np.frombuffer(b"".join(map(pixels, order[part])), np.uint8).reshape(-1, *shape)
        rows = np.arange(start, start + len(images), dtype=np.int32)
        yield Block(images, labels[part], videos[part], rows)

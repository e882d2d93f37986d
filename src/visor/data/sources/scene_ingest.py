"""From tasks to a SceneSet: decoded in several processes and written as they come; pixels are not held in memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from visor.core import params
from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.data.archives import SkippedFile
from visor.data.face_set import evenly_spaced
from visor.data.images import BoxStyle, ImageDecodeError, contact_sheet, draw_boxes
from visor.data.scene_set import FACE, SETS, Scene, SceneSet, letterbox, write_scenes
from visor.data.sources.tally import Tally
from visor.data.sources.worker_pool import run_in_order

SceneTask = Callable[[], Sequence[Scene | ImageDecodeError]]  # picklable: a partial of a module-level function


def ingest_scenes(
    tasks: Iterable[SceneTask | SkippedFile],
    path: Path,
    scenes: params.SceneParams,
    source: str,
    licence: str,
    processes: int | None = None,
) -> dict[str, Any]:
    """Write the scenes of ``tasks`` to the SceneSet ``path``, in their order.

    The bytes do not depend on the number of ``processes`` (default: one per CPU). An image that cannot be decoded, and
    one that is not taken, is named on stderr and skipped.

    Returns:
        Numbers of ``scenes``, in total and in each set, of ``faces``, of ``ignored`` boxes, of ``broken`` images, and
        of files ``skipped`` by reason, with the names of the first ones, ``first_skipped``.

    Raises:
        UserError: More than ``scenes.max_broken`` broken images, or a set without a scene.
    """
    counts: Counter[str] = Counter()
    tally = Tally(source, scenes.max_broken, "scenes.max_broken")

    def decoded() -> Iterator[Scene]:
        with tqdm(desc="scenes", unit="", disable=None) as bar:
            for _, results in run_in_order(tally.sift(tasks), _run, processes):
                for result in results:
                    bar.update()
                    if isinstance(result, Scene):
                        ignored = int(result.ignored.sum())
                        counts.update({result.set: 1, "ignored": ignored, "faces": len(result.boxes) - ignored})
                        yield result
                    else:
                        tally.add_broken(result)
        if empty := [name for name in SETS if getattr(scenes, name) and not counts[name]]:
            raise UserError(f"{source}: no scene is left for {' and '.join(empty)}; fix the broken images or add some")

    write_scenes(path, decoded(), source, licence)
    tally.report()
    names = (*SETS, "faces", "ignored")
    return {"scenes": sum(counts[name] for name in SETS), **{name: counts[name] for name in names}, **tally.metrics()}


def _run(task: SceneTask) -> Sequence[Scene | ImageDecodeError]:
    """Run a task, in a worker process."""
    return task()


def proportional_sizes(total: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return how many of ``total`` items go into sets of ``sizes``: in proportion if too few, but one where any."""
    if total >= sum(sizes):
        return tuple(sizes)
    first = [min(1, size) for size in sizes]
    wanted, spare = sum(sizes) - sum(first), total - sum(first)
    ends = [spare * (sum(sizes[:number]) - sum(first[:number])) // wanted for number in range(len(sizes) + 1)]
    return tuple(one + end - start for one, (start, end) in zip(first, pairwise(ends), strict=True))


COLUMNS, SIDE = 8, 160
FACE_STYLE, IGNORED_STYLE = BoxStyle((60, 230, 60), width=1), BoxStyle((170, 170, 170), width=1)


def scene_sheet(scenes: SceneSet, path: Path) -> None:
    """Save a PNG with one line of scenes per set that has any: boxes of faces are green, ignored ones grey."""
    lines = []
    for name in [name for number, name in enumerate(SETS) if (scenes.sets == number).any()]:
        rows = scenes.rows(name)
        shown = rows[evenly_spaced(COLUMNS, len(rows))]
        lines.append((f"{name}\n{len(rows)} scenes", np.stack([_draw_scene(scenes, row) for row in shown])))
    contact_sheet(lines, path, scale=1, caption_width=80)


def _draw_scene(scenes: SceneSet, row: int) -> ImageArray:
    """Return one scene uint8 (SIDE, SIDE, 3) with its boxes."""
    boxes, kinds = scenes.ground_truth(row)
    image, boxes = letterbox(scenes.image(row), boxes, SIDE)
    styles = [FACE_STYLE if kind == FACE else IGNORED_STYLE for kind in kinds]
    return draw_boxes(image, [((x, y, w - 1, h - 1), style) for (x, y, w, h), style in zip(boxes, styles, strict=True)])

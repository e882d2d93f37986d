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
        if empty := [name for name in SETS if not counts[name]]:
            raise UserError(f"{source}: no scene is left for {' and '.join(empty)}; fix the broken images or add some")

    write_scenes(path, decoded(), source, licence)
    tally.report()
    names = (*SETS, "faces", "ignored")
    return {"scenes": sum(counts[name] for name in SETS), **{name: counts[name] for name in names}, **tally.metrics()}


def _run(task: SceneTask) -> Sequence[Scene | ImageDecodeError]:
    """Run a task, in a worker process."""
    return task()


def proportional_sizes(total: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return how many of ``total`` items go into sets of ``sizes``: in proportion if too few, at least one each."""
    if total >= sum(sizes):
        return tuple(sizes)
    wanted, spare = sum(sizes) - len(sizes), total - len(sizes)  # beyond one each
    ends = [spare * (sum(sizes[:number]) - number) // wanted for number in range(len(sizes) + 1)]
    return tuple(1 + end - start for start, end in pairwise(ends))


COLUMNS, SIDE = 8, 160
FACE_STYLE, IGNORED_STYLE = BoxStyle((60, 230, 60), width=1), BoxStyle((170, 170, 170), width=1)


def scene_sheet(scenes: SceneSet, path: Path) -> None:
    """Save a PNG with one line of scenes per set: boxes of faces are green, ignored ones grey."""
    lines = []
    for name in SETS:
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

"""From tasks to a SceneSet: decoded by several processes and written as they come; pixels are never held."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from visor.core import params
from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.data.images import ImageDecodeError, contact_sheet
from visor.data.scene_set import FACE, SETS, Scene, SceneSet, letterbox, write_scenes
from visor.data.sources.worker_pool import report_broken, run_in_order

SceneTask = Callable[[], Sequence[Scene | ImageDecodeError]]  # picklable: a partial of a module-level function


def ingest_scenes(
    tasks: Iterable[SceneTask],
    path: Path,
    scenes: params.SceneParams,
    source: str,
    licence: str,
    processes: int | None = None,
) -> dict[str, int]:
    """Write the scenes of ``tasks`` to the SceneSet ``path``, in their order.

    The bytes do not depend on the number of ``processes`` (default: one a CPU). An image that cannot be decoded is
    named on stderr and skipped.

    Returns:
        Counts of ``scenes`` in all and in each set, of ``faces`` and of ``ignored`` boxes, and of ``broken`` images.

    Raises:
        UserError: more than ``scenes.max_broken`` broken images, or a set without a scene.
    """
    counts: Counter[str] = Counter()

    def decoded() -> Iterator[Scene]:
        with tqdm(desc="scenes", unit="", disable=None) as bar:
            for _, results in run_in_order(tasks, _work, processes):
                for result in results:
                    bar.update()
                    if isinstance(result, Scene):
                        ignored = int(result.ignored.sum())
                        counts.update({result.set: 1, "ignored": ignored, "faces": len(result.boxes) - ignored})
                        yield result
                    else:
                        counts["broken"] += 1
                        report_broken(result, counts["broken"], scenes.max_broken, "scenes.max_broken")
        if empty := [name for name in SETS if not counts[name]]:
            raise UserError(f"{source}: no scene is left for {' and '.join(empty)}; mend the broken images or add some")

    write_scenes(path, decoded(), source, licence)
    names = (*SETS, "faces", "ignored", "broken")
    return {"scenes": sum(counts[name] for name in SETS)} | {name: counts[name] for name in names}


def _work(task: SceneTask) -> Sequence[Scene | ImageDecodeError]:
    """In a worker."""
    return task()


def proportional_sizes(total: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return how many of ``total`` go into sets of ``sizes``: in proportion if there are fewer, at least one each."""
    if total >= sum(sizes):
        return tuple(sizes)
    whole, spare = sum(sizes) - len(sizes), total - len(sizes)  # beyond one each
    ends = [spare * (sum(sizes[:number]) - number) // whole for number in range(len(sizes) + 1)]
    return tuple(1 + end - start for start, end in pairwise(ends))


COLUMNS, SIDE = 8, 160
GREEN, GREY = (60, 230, 60), (170, 170, 170)


def scene_sheet(scenes: SceneSet, path: Path) -> None:
    """Save a PNG with a line of scenes for each set: faces are boxed in green, what is ignored in grey."""
    lines = []
    for name in SETS:
        rows = scenes.rows(name)
        shown = rows[np.linspace(0, len(rows) - 1, min(COLUMNS, len(rows))).astype(int)]
        lines.append((f"{name}\n{len(rows)} scenes", np.stack([draw_scene_boxes(scenes, row) for row in shown])))
    contact_sheet(lines, path, scale=1, caption_width=80)


def draw_scene_boxes(scenes: SceneSet, row: int) -> ImageArray:
    """Return one scene uint8 (SIDE, SIDE, 3) with its boxes."""
    boxes, kinds = scenes.ground_truth(row)
    image, boxes = letterbox(scenes.image(row), boxes, SIDE)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for (x, y, width, height), kind in zip(boxes, kinds, strict=True):
        outline = GREEN if kind == FACE else GREY
        draw.rectangle((x, y, x + max(width - 1, 1), y + max(height - 1, 1)), outline=outline)
    return np.asarray(picture)

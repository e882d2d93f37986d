"""From tasks to a SceneSet: decoded by several processes and written as they come; pixels are never held."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from visor import params
from visor.datasets.workers import report_broken, run_in_order
from visor.errors import UserError
from visor.faces import BrokenImage
from visor.scenes import SETS, Scene, write_scenes

Task = Callable[[], Sequence[Scene | BrokenImage]]  # picklable: a partial of a module-level function


def ingest_scenes(
    tasks: Iterable[Task],
    path: Path,
    scenes: params.Scenes,
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

    def whole() -> Iterator[Scene]:
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

    write_scenes(path, whole(), source, licence)
    names = (*SETS, "faces", "ignored", "broken")
    return {"scenes": sum(counts[name] for name in SETS)} | {name: counts[name] for name in names}


def _work(task: Task) -> Sequence[Scene | BrokenImage]:
    """In a worker."""
    return task()


def divide(total: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return how many of ``total`` go into sets of ``sizes``: in proportion if there are fewer, at least one each."""
    if total >= sum(sizes):
        return tuple(sizes)
    whole, spare = sum(sizes) - len(sizes), total - len(sizes)  # beyond one each
    ends = [spare * (sum(sizes[:number]) - number) // whole for number in range(len(sizes) + 1)]
    return tuple(1 + end - start for start, end in pairwise(ends))

"""Decoding by several processes, whose results come in order while memory stays flat."""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, repeat
from multiprocessing import get_context, parent_process
from typing import TypeVar

from tqdm import tqdm

from visor.core.errors import UserError
from visor.data.images import ImageDecodeError

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_PROCESSES = 8  # each takes some 60 MB, and one archive or one disk feeds no more than these


def run_in_order(
    tasks: Iterable[Task], work: Callable[[Task], Result], processes: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with ``work(task)``, done by ``processes`` (default: one a CPU).

    Two tasks a process are under way at most, so that ``tasks`` is streamed; tasks and results are pickled.

    Raises:
        UserError: a process was killed.
    """
    processes = processes or min(os.cpu_count() or 1, MAX_PROCESSES)
    under_way: deque[tuple[Task, Future[Result]]] = deque()
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_follow_parent) as pool:
        for task in chain(tasks, repeat(None)):
            try:
                if task is not None:
                    under_way.append((task, pool.submit(work, task)))
                if not under_way:
                    return
                if task is not None and len(under_way) <= 2 * processes:
                    continue
                done, future = under_way.popleft()
                result = future.result()
            except BrokenProcessPool:
                raise UserError("a decoding process was killed, out of memory perhaps; run again") from None
            yield done, result


def report_broken(image: ImageDecodeError, broken: int, most: int, key: str) -> None:
    """Name an image that cannot be decoded, the ``broken``-th, on stderr.

    Control characters are escaped: a stranger's name does not write to the terminal.

    Raises:
        UserError: it is one more than ``most``, the value of ``key``.
    """
    name, reason = (repr(str(part))[1:-1] for part in image.args)
    tqdm.write(f"broken image {name}: {reason}", file=sys.stderr)
    if broken > most:
        raise UserError(
            f"more than {most} images cannot be decoded, the last is {name}; mend the source or raise {key}"
        )


def _follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent ends, even by ``kill -9``."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()

"""Decoding in several processes: results come in order, and memory stays flat."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from visor.core.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_PROCESSES = 8  # each takes some 60 MB, and one archive or one disk feeds no more than these


def run_in_order(
    tasks: Iterable[Task], work: Callable[[Task], Result], processes: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with ``work(task)``, computed by ``processes`` (default: one per CPU).

    At most two tasks per process are pending, so that ``tasks`` is streamed; tasks and results are pickled.

    Raises:
        UserError: A process was killed.
    """
    processes = processes or min(os.cpu_count() or 1, MAX_PROCESSES)
    pending: deque[tuple[Task, Future[Result]]] = deque()
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_follow_parent) as pool:
        try:
            for task in tasks:
                pending.append((task, pool.submit(work, task)))
                if len(pending) > 2 * processes:
                    done, future = pending.popleft()
                    yield done, future.result()
            while pending:
                done, future = pending.popleft()
                yield done, future.result()
        except BrokenProcessPool:
            raise UserError("a decoding process was killed, out of memory perhaps; run again") from None


def _follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent ends, even by ``kill -9``."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()

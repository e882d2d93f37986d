"""Fuzzing: each reader gets its seeds, its edge cases and then mutations, in a process that may crash.

make fuzz SECONDS=600        all readers; the files that break one are kept in tests/fuzz/found
"""

import argparse
import shutil
import stat
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.fuzz.readers import READERS
from tests.fuzz.worker import FOUND, MEMORY, work

SECONDS, WAITS = 10, 6  # seconds of processor time for one file; the machine may be busy with other things
START = 240  # seconds until a process is ready, TensorFlow imported and edge cases made
KEPT_BYTES = 1 << 17  # of a file to keep as a test


class Tally(NamedTuple):
    """What became of the files of one reader: numbers, failures by name, seconds, peak of memory in MiB."""

    counts: Counter
    failures: dict[str, str]
    seconds: float
    peak: int


def processor_seconds(number):
    """Return the processor time of a process and all that it started."""
    with suppress(psutil.Error):
        process = psutil.Process(number)
        return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])
    return 0


class Worker:
    """A process that reads the files of some readers, and another one when a file has ended it."""

    def __init__(self, folder, tensorflow):
        self.folder, self.tensorflow, self.process = folder, tensorflow, None

    def start(self, name):
        """Return how many files of a reader are tried always, and how many edge cases it has."""
        if self.process is None:
            context = get_context("forkserver")
            context.set_forkserver_preload(["tests.fuzz.worker"])
            self.end, theirs = context.Pipe()
            self.process = context.Process(target=work, args=(theirs, self.folder, self.tensorflow), daemon=True)
            self.process.start()
            theirs.close()
        self.end.send((name, None))
        return self.answer(START)

    def answer(self, seconds):
        """Receive an answer within so many seconds of processor time, and ``WAITS`` times as many of the clock."""
        begin = processor_seconds(self.process.pid)
        for _ in range(WAITS):
            if self.end.poll(seconds):
                return self.end.recv()
            if processor_seconds(self.process.pid) - begin >= seconds:
                break
        raise TimeoutError

    def ask(self, name, number):
        """Return the name of a case, its outcome and the peak of memory in MiB."""
        case = f"number {number}"
        try:
            self.end.send((name, number))
            case = self.answer(START)
            return case, *self.answer(SECONDS)
        except TimeoutError:
            outcome = "hang"
        except (EOFError, OSError):
            self.process.join(START)
            outcome = f"crash with exit code {self.process.exitcode}"
        self.stop()
        return case, outcome, 0

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.join()
            self.end.close()
            self.process = None


def fuzz(name, worker, seconds, kept):
    """Give a reader what is tried always, then edge cases and mutations for so many seconds."""
    counts, failures, peak = Counter(), {}, 0
    always, edge_cases = worker.start(name)
    begin = time.monotonic()
    for number in count():
        if number >= always and time.monotonic() - begin > seconds:
            break
        if worker.process is None:
            worker.start(name)
        case, outcome, memory = worker.ask(name, number)
        peak = max(peak, memory)
        if memory << 20 > MEMORY:
            outcome = f"memory of {memory} MiB"
            worker.stop()
        if outcome not in ("accepted", "refused"):
            keep(worker.folder / "case" / READERS[name].file, kept / name, case)
            failures[case] = outcome
            outcome = outcome.split()[0] if outcome.startswith(("hang", "crash")) else "wrong"
        counts[outcome] += 1
    counts["by hand"] = min(number - always, edge_cases)
    return Tally(counts, failures, time.monotonic() - begin, peak)


def keep(path, folder, case):
    """Keep a file that broke a reader."""
    if path.exists() and stat.S_ISREG(path.stat().st_mode) and path.stat().st_size <= KEPT_BYTES:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "".join(letter if letter.isalnum() else "-" for letter in case)[:80])


def fuzz_all(names, seconds, kept, jobs=2):
    """Return the tally of each reader; those that need TensorFlow share a process."""
    share = seconds * jobs / len(names)
    slow = [name for name in names if READERS[name].tensorflow]
    groups = [slow] * bool(slow) + [[name] for name in names if name not in slow]

    def run(group):
        with tempfile.TemporaryDirectory() as folder:
            worker = Worker(Path(folder), group is slow)
            try:
                return {name: fuzz(name, worker, share, kept) for name in group}
            finally:
                worker.stop()

    with ThreadPoolExecutor(jobs) as pool:
        return {name: tally for part in pool.map(run, groups) for name, tally in part.items()}


def table(tallies):
    columns = ("accepted", "refused", "wrong", "crash", "hang")
    rows = [("reader", "inputs", "by hand", *columns, "seconds", "MiB")]
    for name, (counts, _, seconds, peak) in tallies.items():
        numbers = [counts[column] for column in columns]
        rows.append((name, sum(numbers), counts["by hand"], *numbers, round(seconds), peak))
    rows.append(
        ("all", *(sum(column) for column in list(zip(*rows[1:], strict=True))[1:-1]), max(row[-1] for row in rows[1:]))
    )
    return "\n".join(f"{row[0]:<14}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows)


def failures_of(tallies):
    return [f"{name}, {case}: {text}" for name, tally in tallies.items() for case, text in tally.failures.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    options = parser.parse_args()
    tallies = fuzz_all(options.readers, options.seconds, FOUND)
    failures = failures_of(tallies)
    print(table(tallies), *failures, f"{len(failures)} failures", sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

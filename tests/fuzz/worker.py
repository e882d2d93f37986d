"""The process that reads hostile files: what it tries, how a verdict comes about, within limits of memory."""

import os
import resource
import shutil
import sys
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz.edge_cases import edge_cases_of
from tests.fuzz.mutate import mutate
from tests.fuzz.readers import READERS, prepare
from visor.core import errors
from visor.data.images import ImageDecodeError

FOUND = Path(__file__).with_name("found")
MEMORY = 3 << 29  # bytes that the process may take
MAX_SENTENCE = 600


class Case(NamedTuple):
    """A file for a reader, and what it may do with it: ``accepted``, ``refused`` or either."""

    name: str
    content: object
    allowed: tuple[str, ...]


@cache
def cases_of(name):
    """Return what is tried always, the seeds and what broke the reader once, and edge cases in a fixed mixed order."""
    either = ("accepted", "refused")
    seeds = [Case(f"seed {key}", seed.wrap(seed.content), ("accepted",)) for key, seed in READERS[name].seeds().items()]
    found = [Case(path.name, path.read_bytes(), either) for path in sorted((FOUND / name).glob("*"))]
    edge_cases = [
        Case(key, content, either if odd else ("refused",)) for key, (content, odd) in edge_cases_of(name).items()
    ]
    Random(0).shuffle(edge_cases)
    return [*seeds, *found], edge_cases


def mutation(name, number):
    random = Random(f"{name} {number}")
    seed = random.choice(list(READERS[name].seeds().values()))
    return Case(f"mutation {number}", seed.wrap(mutate(seed.content, random)), ("accepted", "refused"))


def place(case, path):
    """Put a file where it is read."""
    if isinstance(case.content, bytes):
        path.write_bytes(case.content)
    else:
        case.content(path)


def check(reader, case, path):
    """Return ``accepted`` or ``refused`` if that is right and said as it has to be, else what is wrong."""
    try:
        reader.call(path)
        outcome, text = "accepted", ""
    except errors.UserError as error:
        outcome, text = "refused", str(error)
    except ImageDecodeError as error:
        outcome, text = "refused", ": ".join(error.args)
    except OSError as error:
        if error.errno not in errors.REFUSED:
            return f"{type(error).__name__}: {error}"
        outcome, text = "refused", errors._describe(error)[0]
    except BaseException as error:
        trace = error.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        return f"{type(error).__name__} in {where}: {error!s:.200}"
    if text and (not text.isprintable() or len(text) > MAX_SENTENCE or path.stem not in text):
        return f"not a sentence on {path.name}: {text!r:.700}"
    return outcome if outcome in case.allowed else f"wrongly {outcome}: {text}"


def work(end, folder, tensorflow):
    """Answer (reader, number) with the case, then (outcome, peak in MiB); (reader, None) with its numbers of cases."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries in C say, and names of broken images
    prepare()
    if tensorflow:
        import visor.core.tf  # noqa: F401 - it takes most of the address space
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    while True:
        name, number = end.recv()
        always, edge_cases = cases_of(name)
        if number is None:
            end.send((len(always), len(edge_cases)))
            continue
        reader, fixed = READERS[name], [*always, *edge_cases]
        case = fixed[number] if number < len(fixed) else mutation(name, number)
        path = Path("case", reader.file).absolute()
        shutil.rmtree("case", ignore_errors=True)
        path.parent.mkdir()
        place(case, path)
        end.send(case.name)
        end.send((check(reader, case, path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))

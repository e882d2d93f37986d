"""A photo on the desk, and whose turn it is."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal, NamedTuple

from visor.app.faces import Spot
from visor.app.levels import Level
from visor.app.protecting import Protected
from visor.app.uploads import Upload

State = Literal["waiting", "running", "done", "cancelled", "failed"]

OPEN = ("waiting", "running")


class Job(NamedTuple):
    """A photo on the desk, as it is now: ``place`` in the queue, 1 is next, None: it waits no more; ``progress`` in
    [0, 1] and what is done in ``words``; ``result`` when it is done, ``error``, a sentence, when it failed.
    """

    id: str
    session: str
    name: str
    state: State
    progress: float
    words: str
    place: int | None
    result: Protected | None
    error: str | None


class Order(NamedTuple):
    """What the worker needs."""

    upload: Upload
    faces: Sequence[Spot]
    level: Level
    target: str


@dataclass(eq=False)
class Paper:
    """A job as the desk keeps it: ``held`` bytes of photos at most; ``order`` is let go when the job ends."""

    job: Job
    held: int
    order: Order | None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def open(self) -> bool:
        """Whether it waits or is worked on."""
        return self.job.state in OPEN

    def end(self, state: State, result: Protected | None = None, error: str | None = None) -> None:
        """Note how it ended, once; the first end counts."""
        self.stop.set()
        if self.open:
            self.job = self.job._replace(state=state, words="", result=result, error=error)
            self.held = self.held if result else 0
            self.order = None


def in_turn(papers: Mapping[str, Sequence[Paper]], turns: Sequence[str]) -> list[Paper]:
    """Return what waits, next first: of each session in ``turns`` one, then of each another."""
    waiting = [[paper for paper in papers[session] if paper.job.state == "waiting"] for session in turns]
    return [paper for once in zip_longest(*waiting) for paper in once if paper is not None]

"""The desk: photos are handed in, wait their turn, and are picked up by the session that brought them, alone."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from visor.app import faults, limits
from visor.app.faces import Spot
from visor.app.jobs import Job, Order, Paper, in_turn
from visor.app.levels import Level
from visor.app.onlookers import Eyes
from visor.app.protecting import Cancelled, Protected, protect
from visor.app.uploads import Upload
from visor.errors import UserError

__all__ = ["Desk", "Job"]

LOG = logging.getLogger(__name__)
SWEPT_SECONDS = 5.0
COPIES = 3  # of a photo in memory: before, after, and the PNG, which is at most a little larger
OPENING = "Loading the networks"
FAILED = "This photo could not be protected; try once more, or choose another one"


class Desk:
    """The queue of a process and the one thread that works on it; every method can be called from any thread.

    ``open_eyes`` is called once, when first needed. Sessions have turns: whoever hands in twenty photos does not keep
    the others waiting for all of them.
    """

    def __init__(
        self,
        open_eyes: Callable[[], Eyes],
        work: Callable[..., Protected] = protect,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open, self._work, self._clock = open_eyes, work, clock
        self._eyes: Eyes | None = None
        self._opening = threading.Lock()
        self._changed = threading.Condition()  # guards all below
        self._papers: dict[str, list[Paper]] = {}
        self._seen: dict[str, float] = {}
        self._turns: list[str] = []  # sessions, the next first; the one whose photo is worked on is last
        self._closed = threading.Event()
        for task in (self._serve, self._watch):
            threading.Thread(target=task, daemon=True).start()

    @property
    def opened(self) -> bool:
        """Whether the networks are loaded, so that ``eyes`` does not wait."""
        return self._eyes is not None

    def eyes(self) -> Eyes:
        """Return the networks; the first call loads them, others wait for it.

        Raises:
            UserError: they cannot be had.
        """
        with self._opening:
            if self._eyes is None:
                self._eyes = self._open()
            return self._eyes

    def submit(self, session: str, upload: Upload, faces: Sequence[Spot], level: Level, target: str) -> Job:
        """Hand in a photo with its chosen faces; return its place in the queue.

        Raises:
            UserError: no or too many faces are chosen, or the session's share, the queue or the memory is full.
        """
        if not 1 <= len(faces) <= limits.FACES:
            raise UserError(f"{upload.name} has {len(faces)} chosen faces; choose 1 to {limits.FACES}")
        with self._changed:
            self._require_room(session, held := COPIES * upload.image.nbytes)
            job = Job(secrets.token_urlsafe(12), session, upload.name, "waiting", 0.0, "", None, None, None)
            paper = Paper(job, held, Order(upload, tuple(faces), level, target))
            self._papers.setdefault(session, []).append(paper)
            if session not in self._turns:
                self._turns.insert(len(self._turns) - self._busy(), session)
            self._seen[session] = self._clock()
            self._changed.notify_all()
            return self._jobs(session)[-1]

    def jobs(self, session: str) -> list[Job]:
        """Return the photos of a session, in the order in which they came."""
        with self._changed:
            return self._jobs(session)

    def cancel(self, session: str, job: str) -> None:
        """Stop a session's photo by its id, if it waits or is worked on; a stranger's is left alone."""
        with self._changed:
            for paper in self._papers.get(session, []):
                if paper.job.id == job:
                    paper.end("cancelled")

    def drop(self, session: str, job: str) -> None:
        """Forget a session's photo by its id, whatever its state; a running one is cancelled."""
        with self._changed:
            self.cancel(session, job)
            if session in self._papers:
                self._papers[session] = [paper for paper in self._papers[session] if paper.job.id != job]

    def forget(self, session: str) -> None:
        """Drop all photos and results of a session, at once."""
        with self._changed:
            for paper in self._papers.pop(session, []):
                paper.end("cancelled")
            self._turns = [other for other in self._turns if other != session]
            self._seen.pop(session, None)

    def alive(self, session: str) -> None:
        """Note a sign of life of a session: its results are kept for another ``limits.KEPT_SECONDS``."""
        with self._changed:
            if session in self._papers:
                self._seen[session] = self._clock()

    def sweep(self) -> None:
        """Forget the sessions that have been silent for too long; a timer calls it."""
        with self._changed:
            for session, last in list(self._seen.items()):
                if self._clock() - last > limits.KEPT_SECONDS:
                    self.forget(session)

    def close(self) -> None:
        """Stop the worker and the timer, and drop everything."""
        with self._changed:
            self._closed.set()
            for session in list(self._papers):
                self.forget(session)
            self._changed.notify_all()

    def _require_room(self, session: str, held: int) -> None:
        papers, own = [paper for each in self._papers.values() for paper in each], self._papers.get(session, [])
        if sum(paper.open for paper in own) >= limits.PHOTOS:
            raise UserError(f"{limits.PHOTOS} photos at once are the most; wait until one of yours is done")
        if sum(paper.open for paper in papers) >= limits.QUEUED:
            raise UserError(f"The queue is full with {limits.QUEUED} photos; try again in a few minutes")
        if sum(paper.held for paper in own) + held > limits.HELD_BYTES // 2:
            raise UserError("Your photos fill your share of the memory; save and remove some, then try again")
        if sum(paper.held for paper in papers) + held > limits.HELD_BYTES:
            raise UserError("The memory for photos is full; remove photos that you have saved, or try again later")

    def _busy(self) -> bool:
        """Return whether the last session in turn is the one whose photo is worked on."""
        return any(paper.job.state == "running" for last in self._turns[-1:] for paper in self._papers[last])

    def _jobs(self, session: str) -> list[Job]:
        order = in_turn(self._papers, self._turns)
        places = {paper.job.id: place for place, paper in enumerate(order, start=1)}
        return [paper.job._replace(place=places.get(paper.job.id)) for paper in self._papers.get(session, [])]

    def _serve(self) -> None:
        while not self._closed.is_set():
            self._work_on(self._next())  # no name here keeps a photo that was forgotten

    def _next(self) -> Paper | None:
        """Wait for a photo and take it: its session is last now; None: the desk is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or in_turn(self._papers, self._turns))
            if self._closed.is_set():
                return None
            paper = in_turn(self._papers, self._turns)[0]
            self._turns.remove(paper.job.session)
            self._turns.append(paper.job.session)
            paper.job = paper.job._replace(state="running", words="" if self.opened else OPENING)
            return paper

    def _work_on(self, paper: Paper | None) -> None:
        """Do a job, whatever it raises; what is logged of that tells nothing of the photo."""
        if paper is None:
            return

        def say(share: float, words: str) -> None:
            with self._changed:
                if paper.open:
                    paper.job = paper.job._replace(progress=share, words=words)

        result, sentence = None, None
        try:
            eyes = self.eyes()
            if order := paper.order:  # it was not cancelled meanwhile
                result = self._work(eyes, *order, say, paper.stop.is_set)
        except Cancelled:
            pass
        except UserError as error:
            sentence = str(error)
        except Exception as error:
            LOG.error("a photo failed: %s", faults.describe(error))
            sentence = FAILED
        with self._changed:
            paper.end("done" if result else "failed" if sentence else "cancelled", result, sentence)

    def _watch(self) -> None:
        while not self._closed.wait(SWEPT_SECONDS):
            try:
                self.sweep()
            except Exception as error:
                LOG.error("the timer failed: %s", faults.describe(error))

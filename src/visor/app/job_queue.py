"""The desk: photos are handed in, wait their turn, and are picked up by the session that brought them, alone."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal, NamedTuple

from visor.app import error_logging, settings
from visor.app.networks import Networks, Spot
from visor.app.protect import JobCancelled, ProtectionResult, protect
from visor.app.settings import ProtectionLevel
from visor.app.uploads import Upload
from visor.core.errors import UserError

State = Literal["waiting", "running", "done", "cancelled", "failed"]

PENDING_STATES = ("waiting", "running")


class Job(NamedTuple):
    """A photo on the desk, as it is now: ``place`` in the queue, 1 is next, None: it waits no more; ``progress`` in
    [0, 1] and what is done in ``words``; ``result`` when it is done, ``error``, a sentence, when it failed.
    """

    id: str
    session: str
    name: str
    state: State
    progress: float
    status_text: str
    position: int | None
    result: ProtectionResult | None
    error: str | None


class JobRequest(NamedTuple):
    """What the worker needs."""

    upload: Upload
    faces: Sequence[Spot]
    level: ProtectionLevel
    target: str


@dataclass(eq=False)
class QueueEntry:
    """A job as the desk keeps it: ``held`` bytes of photos at most; ``order`` is let go when the job ends."""

    job: Job
    reserved_bytes: int
    order: JobRequest | None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def is_pending(self) -> bool:
        """Whether it waits or is worked on."""
        return self.job.state in PENDING_STATES

    def finish(self, state: State, result: ProtectionResult | None = None, error: str | None = None) -> None:
        """Note how it ended, once; the first end counts."""
        self.stop.set()
        if self.is_pending:
            self.job = self.job._replace(state=state, status_text="", result=result, error=error)
            self.reserved_bytes = self.reserved_bytes if result else 0
            self.order = None


def round_robin(papers: Mapping[str, Sequence[QueueEntry]], turns: Sequence[str]) -> list[QueueEntry]:
    """Return what waits, next first: of each session in ``turns`` one, then of each another."""
    waiting = [[paper for paper in papers[session] if paper.job.state == "waiting"] for session in turns]
    return [paper for once in zip_longest(*waiting) for paper in once if paper is not None]


__all__ = ["Job", "JobQueue"]

LOG = logging.getLogger(__name__)
SWEPT_SECONDS = 5.0
COPIES_PER_PHOTO = 3  # of a photo in memory: before, after, and the PNG, which is at most a little larger
OPENING = "Loading the networks"
FAILED = "This photo could not be protected; try once more, or choose another one"


class JobQueue:
    """The queue of a process and the one thread that works on it; every method can be called from any thread.

    ``open_eyes`` is called once, when first needed. Sessions have turns: whoever hands in twenty photos does not keep
    the others waiting for all of them.
    """

    def __init__(
        self,
        load_networks: Callable[[], Networks],
        work: Callable[..., ProtectionResult] = protect,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open, self._work, self._clock = load_networks, work, clock
        self._eyes: Networks | None = None
        self._opening = threading.Lock()
        self._changed = threading.Condition()  # guards all below
        self._papers: dict[str, list[QueueEntry]] = {}
        self._seen: dict[str, float] = {}
        self._turns: list[str] = []  # sessions, the next first; the one whose photo is worked on is last
        self._closed = threading.Event()
        for task in (self._run_worker, self._run_sweeper):
            threading.Thread(target=task, daemon=True).start()

    @property
    def networks_loaded(self) -> bool:
        """Whether the networks are loaded, so that ``eyes`` does not wait."""
        return self._eyes is not None

    def networks(self) -> Networks:
        """Return the networks; the first call loads them, others wait for it.

        Raises:
            UserError: they cannot be had.
        """
        with self._opening:
            if self._eyes is None:
                self._eyes = self._open()
            return self._eyes

    def submit(self, session: str, upload: Upload, faces: Sequence[Spot], level: ProtectionLevel, target: str) -> Job:
        """Hand in a photo with its chosen faces; return its place in the queue.

        Raises:
            UserError: no or too many faces are chosen, or the session's share, the queue or the memory is full.
        """
        if not 1 <= len(faces) <= settings.FACES:
            raise UserError(f"{upload.name} has {len(faces)} chosen faces; choose 1 to {settings.FACES}")
        with self._changed:
            self._check_limits(session, held := COPIES_PER_PHOTO * upload.image.nbytes)
            job = Job(secrets.token_urlsafe(12), session, upload.name, "waiting", 0.0, "", None, None, None)
            paper = QueueEntry(job, held, JobRequest(upload, tuple(faces), level, target))
            self._papers.setdefault(session, []).append(paper)
            if session not in self._turns:
                self._turns.insert(len(self._turns) - self._last_is_running(), session)
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
                    paper.finish("cancelled")

    def remove(self, session: str, job: str) -> None:
        """Forget a session's photo by its id, whatever its state; a running one is cancelled."""
        with self._changed:
            self.cancel(session, job)
            if session in self._papers:
                self._papers[session] = [paper for paper in self._papers[session] if paper.job.id != job]

    def clear_session(self, session: str) -> None:
        """Drop all photos and results of a session, at once."""
        with self._changed:
            for paper in self._papers.pop(session, []):
                paper.finish("cancelled")
            self._turns = [other for other in self._turns if other != session]
            self._seen.pop(session, None)

    def keep_alive(self, session: str) -> None:
        """Note a sign of life of a session: its results are kept for another ``limits.KEPT_SECONDS``."""
        with self._changed:
            if session in self._papers:
                self._seen[session] = self._clock()

    def expire_sessions(self) -> None:
        """Forget the sessions that have been silent for too long; a timer calls it."""
        with self._changed:
            for session, last in list(self._seen.items()):
                if self._clock() - last > settings.IDLE_SECONDS:
                    self.clear_session(session)

    def close(self) -> None:
        """Stop the worker and the timer, and drop everything."""
        with self._changed:
            self._closed.set()
            for session in list(self._papers):
                self.clear_session(session)
            self._changed.notify_all()

    def _check_limits(self, session: str, held: int) -> None:
        papers, own = [paper for each in self._papers.values() for paper in each], self._papers.get(session, [])
        if sum(paper.is_pending for paper in own) >= settings.PHOTOS:
            raise UserError(f"{settings.PHOTOS} photos at once are the most; wait until one of yours is done")
        if sum(paper.is_pending for paper in papers) >= settings.MAX_QUEUED:
            raise UserError(f"The queue is full with {settings.MAX_QUEUED} photos; try again in a few minutes")
        if sum(paper.reserved_bytes for paper in own) + held > settings.MAX_PHOTO_MEMORY // 2:
            raise UserError("Your photos fill your share of the memory; save and remove some, then try again")
        if sum(paper.reserved_bytes for paper in papers) + held > settings.MAX_PHOTO_MEMORY:
            raise UserError("The memory for photos is full; remove photos that you have saved, or try again later")

    def _last_is_running(self) -> bool:
        """Return whether the last session in turn is the one whose photo is worked on."""
        return any(paper.job.state == "running" for last in self._turns[-1:] for paper in self._papers[last])

    def _jobs(self, session: str) -> list[Job]:
        order = round_robin(self._papers, self._turns)
        places = {paper.job.id: place for place, paper in enumerate(order, start=1)}
        return [paper.job._replace(position=places.get(paper.job.id)) for paper in self._papers.get(session, [])]

    def _run_worker(self) -> None:
        while not self._closed.is_set():
            self._run_job(self._take_next())  # no name here keeps a photo that was forgotten

    def _take_next(self) -> QueueEntry | None:
        """Wait for a photo and take it: its session is last now; None: the desk is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or round_robin(self._papers, self._turns))
            if self._closed.is_set():
                return None
            paper = round_robin(self._papers, self._turns)[0]
            self._turns.remove(paper.job.session)
            self._turns.append(paper.job.session)
            paper.job = paper.job._replace(state="running", status_text="" if self.networks_loaded else OPENING)
            return paper

    def _run_job(self, paper: QueueEntry | None) -> None:
        """Do a job, whatever it raises; what is logged of that tells nothing of the photo."""
        if paper is None:
            return

        def report_progress(share: float, words: str) -> None:
            with self._changed:
                if paper.is_pending:
                    paper.job = paper.job._replace(progress=share, status_text=words)

        result, sentence = None, None
        try:
            eyes = self.networks()
            if order := paper.order:  # it was not cancelled meanwhile
                result = self._work(eyes, *order, report_progress, paper.stop.is_set)
        except JobCancelled:
            pass
        except UserError as error:
            sentence = str(error)
        except Exception as error:
            LOG.error("a photo failed: %s", error_logging.error_location(error))
            sentence = FAILED
        with self._changed:
            paper.finish("done" if result else "failed" if sentence else "cancelled", result, sentence)

    def _run_sweeper(self) -> None:
        while not self._closed.wait(SWEPT_SECONDS):
            try:
                self.expire_sessions()
            except Exception as error:
                LOG.error("the timer failed: %s", error_logging.error_location(error))

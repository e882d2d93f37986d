"""Queue of photos to protect: one worker thread; sessions take turns, and each has access to its own jobs only."""

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Literal, NamedTuple

from visor.app import error_logging, settings
from visor.app.networks import Networks
from visor.app.protect import JobCancelled, ProtectionResult, protect
from visor.app.settings import ProtectionLevel
from visor.app.uploads import Upload
from visor.core.errors import UserError
from visor.photos.faces import Face

LOG = logging.getLogger(__name__)
State = Literal["waiting", "running", "done", "cancelled", "failed"]
COPIES_PER_PHOTO = 3  # in memory: before, after, and the PNG, which is at most a little larger
LOADING = "Loading networks"
FAILED = "This photo could not be processed. Try again, or choose another photo."


class JobRequest(NamedTuple):
    """Key of a photo on the page, numbers of its selected faces and the faces, level, and a key of ``TARGETS``."""

    photo: str
    numbers: tuple[int, ...]
    faces: tuple[Face, ...]
    level: ProtectionLevel
    target: str


class Job(NamedTuple):
    """A photo in the queue, as it is now."""

    id: str
    session: str
    name: str
    request: JobRequest
    state: State = "waiting"
    progress: float = 0.0  # share in [0, 1]
    status_text: str = ""  # current step
    position: int | None = None  # in the queue, 1 is next; None if the job does not wait
    result: ProtectionResult | None = None  # of a job that is done
    error: str | None = None  # why it failed, one sentence

    @property
    def is_pending(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in ("waiting", "running")


@dataclass(eq=False)
class QueueEntry:
    """A job with the memory reserved for its photo; ``upload`` is released when the job ends."""

    job: Job
    reserved_bytes: int
    upload: Upload | None
    stop: threading.Event = field(default_factory=threading.Event)

    def finish(self, state: State, result: ProtectionResult | None = None, error: str | None = None) -> None:
        """Record how the job ended; later calls have no effect."""
        self.stop.set()
        if self.job.is_pending:
            self.job = self.job._replace(state=state, status_text="", result=result, error=error)
            self.reserved_bytes, self.upload = self.reserved_bytes if result else 0, None


def round_robin(entries_by_session: Iterable[Sequence[QueueEntry]]) -> list[QueueEntry]:
    """Return the waiting entries in the order of processing: one of each session, then the second of each."""
    waiting = [[entry for entry in entries if entry.job.state == "waiting"] for entries in entries_by_session]
    return [entry for turn in zip_longest(*waiting) for entry in turn if entry is not None]


class JobQueue:
    """The queue of the process and its worker thread; every method is thread-safe.

    Args:
        load_networks: Called once, when the networks are first needed.
        work: Processes one job.
    """

    def __init__(self, load_networks: Callable[[], Networks], work: Callable[..., ProtectionResult] = protect) -> None:
        self._load, self._work = load_networks, work
        self._networks: Networks | None = None
        self._loading = threading.Lock()
        self._changed = threading.Condition()  # guards the entries
        # By session, in the order of their turns; the session whose photo is processed is last.
        self._entries: OrderedDict[str, list[QueueEntry]] = OrderedDict()
        self._closed = threading.Event()
        threading.Thread(target=self._run_worker, daemon=True).start()

    @property
    def networks_loaded(self) -> bool:
        """Whether ``networks`` returns without waiting."""
        return self._networks is not None

    def networks(self) -> Networks:
        """Return the networks; the first call loads them, others wait for it.

        Raises:
            UserError: They cannot be loaded.
        """
        with self._loading:
            if self._networks is None:
                self._networks = self._load()
            return self._networks

    def submit(self, session: str, upload: Upload, request: JobRequest) -> Job:
        """Queue a photo.

        Raises:
            UserError: No or too many faces are selected, or the queue or the memory is full.
        """
        if not 1 <= len(request.faces) <= settings.FACES:
            raise UserError(f"{upload.name} has {len(request.faces)} selected faces; select 1 to {settings.FACES}")
        with self._changed:
            self._check_limits(session, size := COPIES_PER_PHOTO * upload.image.nbytes)
            if session not in self._entries:
                running = [entry.job.session for entry in self._all_entries() if entry.job.state == "running"]
                self._entries[session] = []
                for other in running:
                    self._entries.move_to_end(other)
            job = Job(secrets.token_urlsafe(12), session, upload.name, request)
            self._entries[session].append(QueueEntry(job, size, upload))
            self._changed.notify_all()
            return self.jobs(session)[-1]

    def jobs(self, session: str) -> list[Job]:
        """Return the jobs of a session in the order of their submission."""
        with self._changed:
            order = round_robin(self._entries.values())
            positions = {entry.job.id: position for position, entry in enumerate(order, start=1)}
            entries = self._entries.get(session, [])
            return [entry.job._replace(position=positions.get(entry.job.id)) for entry in entries]

    def cancel(self, session: str, job_id: str) -> None:
        """Stop a pending job; that of another session is left alone."""
        with self._changed:
            for entry in self._entries.get(session, []):
                if entry.job.id == job_id:
                    entry.finish("cancelled")

    def remove(self, session: str, job_id: str) -> None:
        """Delete a job of a session in any state; a running one is cancelled."""
        with self._changed:
            self.cancel(session, job_id)
            if session in self._entries:
                self._entries[session] = [entry for entry in self._entries[session] if entry.job.id != job_id]

    def clear_session(self, session: str) -> None:
        """Delete all jobs of a session at once."""
        with self._changed:
            for entry in self._entries.pop(session, []):
                entry.finish("cancelled")

    def close(self) -> None:
        """Stop the worker and delete everything."""
        with self._changed:
            self._closed.set()
            for session in list(self._entries):
                self.clear_session(session)
            self._changed.notify_all()

    def _all_entries(self) -> list[QueueEntry]:
        return list(chain.from_iterable(self._entries.values()))

    def _check_limits(self, session: str, size: int) -> None:
        """Raise ``UserError`` if a further photo of ``size`` bytes exceeds a limit."""
        entries, session_entries = self._all_entries(), self._entries.get(session, [])
        if sum(entry.job.is_pending for entry in session_entries) >= settings.PHOTOS:
            raise UserError(f"You can queue at most {settings.PHOTOS} photos; wait until one is finished.")
        if sum(entry.job.is_pending for entry in entries) >= settings.MAX_QUEUED:
            raise UserError(f"The queue is full ({settings.MAX_QUEUED} photos). Try again in a few minutes.")
        if sum(entry.reserved_bytes for entry in session_entries) + size > settings.MAX_SESSION_MEMORY:
            raise UserError(
                "Your photos use all the memory available to you. Download and remove some, then try again."
            )
        if sum(entry.reserved_bytes for entry in entries) + size > settings.MAX_PHOTO_MEMORY:
            raise UserError("Photo memory is full. Remove photos that you have downloaded, or try again later.")

    def _run_worker(self) -> None:
        while not self._closed.is_set():
            self._run_job(self._take_next())  # Do not bind the entry to a name: a deleted photo must be freed at once.

    def _take_next(self) -> QueueEntry | None:
        """Wait for a job and mark it as running; None if the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or round_robin(self._entries.values()))
            if self._closed.is_set():
                return None
            entry = round_robin(self._entries.values())[0]
            self._entries.move_to_end(entry.job.session)
            entry.job = entry.job._replace(state="running", status_text="" if self.networks_loaded else LOADING)
            return entry

    def _run_job(self, entry: QueueEntry | None) -> None:
        """Process a job, whatever it raises; the log gets nothing about the photo."""
        if entry is None:
            return

        def report_progress(share: float, text: str) -> None:
            with self._changed:
                if entry.job.is_pending:
                    entry.job = entry.job._replace(progress=share, status_text=text)

        request, result, message = entry.job.request, None, None
        arguments = request.faces, request.level, request.target, report_progress, entry.stop.is_set
        try:
            networks = self.networks()
            if upload := entry.upload:  # None: the job was cancelled meanwhile
                result = self._work(networks, upload, *arguments)
        except JobCancelled:
            pass
        except UserError as error:
            message = str(error)
        except Exception as error:
            LOG.error("a job failed: %s", error_logging.error_location(error))
            message = FAILED
        with self._changed:
            entry.finish("done" if result else "failed" if message else "cancelled", result, message)

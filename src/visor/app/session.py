"""State of each visitor, the two timers that end it, and the job queue of the process."""

import functools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ParamSpec

import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from visor.app import drawing, error_logging, settings, texts
from visor.app.job_queue import Job, JobQueue, JobRequest
from visor.app.middleware import VISITOR_COOKIE
from visor.app.networks import NetworkOptions, load_networks
from visor.app.uploads import Upload
from visor.core.errors import UserError
from visor.core.types import ImageArray
from visor.photos.faces import Face

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
SETTINGS_VARIABLE = "VISOR_APP"  # environment: NetworkOptions as JSON


@functools.cache
def job_queue() -> JobQueue:
    """Return the job queue of the process; the networks are loaded when they are first needed."""
    return JobQueue(lambda: load_networks(NetworkOptions(**json.loads(os.environ.get(SETTINGS_VARIABLE, "{}")))))


@dataclass
class UploadedPhoto:
    """An upload on the page, its faces, and its preview."""

    key: str  # Streamlit's id of the file
    upload: Upload
    faces: dict[int, Face] | None = None  # by number; None before detection
    selected: dict[int, bool] = field(default_factory=dict)  # by number, removed faces included
    last_tap: float = 0.0  # time of the last click on the image that was handled
    thumbnail: ImageArray = field(init=False)
    cached_preview: tuple[list[drawing.FaceBox], str] | None = None  # boxes of the last drawing, and its URL

    def __post_init__(self) -> None:
        self.thumbnail = drawing.thumbnail(self.upload.image)

    def add(self, faces: Iterable[Face]) -> None:
        """Number further faces and select them; a number is never reused."""
        self.faces = self.faces or {}
        for face in faces:
            number = max(self.selected, default=0) + 1
            self.faces[number], self.selected[number] = face, True

    def selected_faces(self) -> dict[int, Face]:
        """Return the selected faces by number."""
        return {number: face for number, face in (self.faces or {}).items() if self.selected[number]}

    def face_boxes(self) -> list[drawing.FaceBox]:
        """Return the boxes of all faces."""
        return [
            drawing.FaceBox(face.box, face.angle, str(number), "selected" if self.selected[number] else "unselected")
            for number, face in (self.faces or {}).items()
        ]

    def with_boxes(self, *extra: drawing.FaceBox) -> ImageArray:
        """Return the thumbnail uint8 (h, w, 3) with the boxes of all faces and ``extra``."""
        return drawing.draw_face_boxes(self.thumbnail, [*self.face_boxes(), *extra], self.upload.image.shape[1])

    def preview_url(self) -> str:
        """Return the thumbnail with all boxes as a URL; it is drawn again only if they changed."""
        if self.cached_preview is None or self.cached_preview[0] != self.face_boxes():
            self.cached_preview = self.face_boxes(), drawing.data_url(self.with_boxes())
        return self.cached_preview[1]


@dataclass(eq=False)
class Session:
    """Everything that is kept for a visitor; jobs and results are in the queue."""

    id: str  # Streamlit's
    visitor: str = ""  # cookie of the browser
    downloads: set[str] = field(default_factory=set)  # paths of what this session may download
    photos: dict[str, UploadedPhoto] = field(default_factory=dict)  # on the page, by key
    skipped: dict[str, str] = field(default_factory=dict)  # why files were skipped, by key
    rejected: list[str] = field(default_factory=list)  # why photos could not be submitted
    comparisons: dict[tuple[str, int], str] = field(default_factory=dict)  # HTML by job and face, -1 for the photo
    finished_jobs: frozenset[str] = frozenset()  # when the page was last drawn
    adding: str | None = None  # key of the photo to which a face is being added
    uploader_key: int = 0  # changes to reset the uploader
    message: str | None = None  # shown once, at the top of the page
    clicked: float = field(default_factory=lambda: time.monotonic())  # time of the last click
    connected: float = field(default_factory=lambda: time.monotonic())  # last time that the page was open

    @property
    def queue(self) -> JobQueue:
        """The job queue of the process."""
        return job_queue()

    def jobs(self) -> list[Job]:
        """Return the jobs of this session."""
        return self.queue.jobs(self.id)

    def has_pending_jobs(self) -> bool:
        """Return whether a photo waits or is processed."""
        return any(job.is_pending for job in self.jobs())

    def has_content(self) -> bool:
        """Return whether there is anything to delete."""
        return bool(self.photos or self.skipped or self.jobs())

    def touch(self) -> None:
        """Restart the idle timer."""
        self.clicked = time.monotonic()

    def submit(self, photo: UploadedPhoto, request: JobRequest) -> None:
        """Queue a photo; ``JobQueue.submit`` raises ``UserError`` if a limit is exceeded."""
        self.queue.submit(self.id, photo.upload, request)
        with SESSIONS_LOCK:
            SESSIONS[self.id] = self  # Again: if it was closed while this script ran, the timer must find the job.

    def photo_bytes(self) -> int:
        """Return the size of the photos on the page."""
        return sum(photo.upload.image.nbytes for photo in list(self.photos.values()))

    def try_add_photo(self, photo: UploadedPhoto) -> bool:
        """Put a photo on the page if the memory of this session and of all together allows it; return whether."""
        with SESSIONS_LOCK:
            SESSIONS[self.id] = self  # Again, as in ``submit``.
            total, size = sum(session.photo_bytes() for session in SESSIONS.values()), photo.upload.image.nbytes
            if total + size > settings.MAX_PHOTO_MEMORY or self.photo_bytes() + size > settings.MAX_SESSION_MEMORY:
                return False
            self.photos[photo.key] = photo
            return True

    def delete_all(self, message: str) -> None:
        """Delete every photo and result, in the queue and among Streamlit's downloads too; ``message`` confirms it."""
        self.queue.clear_session(self.id)
        for container in (self.photos, self.skipped, self.rejected, self.comparisons, self.downloads):
            container.clear()
        self.adding, self.message, self.uploader_key = None, message, self.uploader_key + 1
        if Runtime.exists():
            files = Runtime.instance().media_file_mgr
            files.clear_session_refs(self.id)
            for _ in range(2):  # the first call only marks prepared downloads
                files.remove_orphaned_files()

    def close(self) -> None:
        """End the session and delete all that it holds; call it in the server's own thread."""
        with SESSIONS_LOCK:
            SESSIONS.pop(self.id, None)
        self.delete_all("")
        if Runtime.exists():
            Runtime.instance().close_session(self.id)
            Runtime.instance().media_file_mgr.remove_orphaned_files()  # closing only marks prepared downloads


SESSIONS: dict[str, Session] = {}
SESSIONS_LOCK = threading.Lock()  # guards SESSIONS and the memory of their photos: each visitor has a thread


def get_session(session_id: str) -> Session:
    """Return the session with this id, a new one if there is none."""
    with SESSIONS_LOCK:
        return SESSIONS.setdefault(session_id, Session(session_id))


def current_session() -> Session:
    """Return the session whose page is being drawn, and restart its timers.

    Raises:
        RuntimeError: No page is being drawn.
    """
    context = get_script_run_ctx()
    if context is None:
        raise RuntimeError("not called by a page of Streamlit")
    session = get_session(context.session_id)
    session.visitor = session.visitor or _visitor_cookie(session.id)
    session.clicked = session.connected = time.monotonic()
    return session


def _visitor_cookie(session_id: str) -> str:
    """Return the cookie that the browser sent when it opened the page of a session."""
    client = Runtime.instance().get_client(session_id) if Runtime.exists() else None
    context = client.client_context if client else None
    return context.cookies.get(VISITOR_COOKIE, "") if context else ""


def owns_download(visitor: str, path: str) -> bool:
    """Return whether a session of the visitor with this cookie offers the download with this path."""
    with SESSIONS_LOCK:
        return bool(visitor) and any(
            session.visitor == visitor and path in session.downloads for session in SESSIONS.values()
        )


def expire_sessions(is_connected: Callable[[str], bool], reconnect_seconds: float) -> None:
    """Apply both timers to all sessions; the server calls it every second, as a sleeping browser sends nothing.

    A session is closed when no page of it was open for ``reconnect_seconds``. Its photos are deleted
    ``settings.IDLE_SECONDS`` after the last click; a pending job counts as a click.
    """
    now = time.monotonic()
    with SESSIONS_LOCK:
        open_sessions = list(SESSIONS.values())
    for session in open_sessions:
        if is_connected(session.id):
            session.connected = now
        elif now - session.connected > reconnect_seconds:
            session.close()
            continue
        if session.has_pending_jobs():
            session.clicked = now
        elif now - session.clicked > settings.IDLE_SECONDS and session.has_content():
            session.delete_all(texts.TIMED_OUT)


def show_errors(draw: Callable[P, None]) -> Callable[P, None]:
    """Make a part of the page show one sentence when it fails; the log gets the kind and place of the error only."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except UserError as error:
            st.error(texts.escape_markdown(str(error)))
        except Exception as error:  # any message may contain the name of a photo
            LOG.error("a part of the page failed: %s", error_logging.error_location(error))
            st.error(texts.UNEXPECTED)

    return wrapper

"""What a process has one of: the desk and the watch over sessions. Server and page both ask here."""

import functools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, ParamSpec
from weakref import WeakSet

import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from visor.app import drawing, error_logging, settings, texts
from visor.app.job_queue import PENDING_STATES, JobQueue
from visor.app.networks import NetworkOptions, Spot, load_networks
from visor.app.settings import ProtectionLevel
from visor.app.uploads import Upload
from visor.core.errors import UserError
from visor.core.types import ImageArray


class SessionMonitor:
    """Those that joined; ``close`` is called for one that was not ``connected`` for more than ``patience`` seconds."""

    def __init__(
        self,
        connected: Callable[[str], bool],
        close: Callable[[str], None],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connected, self._close, self._patience, self._clock = connected, close, timeout, clock
        self._seen: dict[str, float] = {}

    def register(self, session: str) -> None:
        """Note that a session's page is drawn; from any thread."""
        self._seen[session] = self._clock()

    def sweep(self) -> None:
        """Look after the sessions once."""
        now = self._clock()
        for session, seen in list(self._seen.items()):
            if self._connected(session):
                self._seen[session] = now
            elif now - seen > self._patience:
                del self._seen[session]
                self._close(session)


SETTINGS_VARIABLE, FORGET_VARIABLE = (
    "VISOR_APP",
    "VISOR_APP_FORGET",
)  # environment: Options as JSON; seconds after a tab is closed
RECONNECT_SECONDS = 120  # seconds: a phone that shows something else meanwhile


@cache
def job_queue() -> JobQueue:
    """Return the desk; the networks are loaded when they are first needed."""
    chosen: Mapping[str, Any] = json.loads(os.environ.get(SETTINGS_VARIABLE, "{}"))
    return JobQueue(lambda: load_networks(NetworkOptions(**chosen)))


@cache
def session_monitor() -> SessionMonitor:
    """Return the sessions of the server that runs."""
    patience = float(os.environ.get(FORGET_VARIABLE, RECONNECT_SECONDS))
    return SessionMonitor(Runtime.instance().is_active_session, _close, patience)


def register_session() -> str:
    """Return the session whose page is being drawn, and note that it lives.

    Raises:
        RuntimeError: no page is being drawn.
    """
    context = get_script_run_ctx()
    if context is None:
        raise RuntimeError("this is no page of Streamlit's")
    if Runtime.exists():
        session_monitor().register(context.session_id)
    job_queue().keep_alive(context.session_id)
    return context.session_id


def _close(session: str) -> None:
    """Drop all that there is of a session; in the server's own thread."""
    job_queue().clear_session(session)
    runtime = Runtime.instance()
    runtime.close_session(session)
    runtime.media_file_mgr.remove_orphaned_files()  # closing only marks what was to be downloaded


LOG = logging.getLogger(__name__)
Given = ParamSpec("Given")


@dataclass
class UploadedPhoto:
    """An upload, its faces by number (None: nobody looked yet), which are ticked, and the last tap that counted.

    ``small`` is what the page draws on, ``drawn`` the last drawing, an address, and the marks that it has.
    """

    key: str
    upload: Upload
    faces: dict[int, Spot] | None = None
    selected: dict[int, bool] = field(default_factory=dict)
    last_tap: float = 0.0
    thumbnail: ImageArray = field(init=False)
    cached_preview: tuple[list[drawing.FaceBox], str] | None = None

    def __post_init__(self) -> None:
        self.thumbnail = drawing.thumbnail(self.upload.image)

    def add(self, faces: Iterable[Spot]) -> None:
        """Number further faces and tick them; a number is never used twice."""
        self.faces = self.faces or {}
        for spot in faces:
            number = max(self.selected, default=0) + 1
            self.faces[number], self.selected[number] = spot, True

    def selected_faces(self) -> dict[int, Spot]:
        """Return the ticked faces by number."""
        return {number: spot for number, spot in (self.faces or {}).items() if self.selected[number]}

    def face_boxes(self) -> list[drawing.FaceBox]:
        """Return the boxes of all faces."""
        return [
            drawing.FaceBox(spot.box, spot.angle, str(number), "ticked" if self.selected[number] else "left out")
            for number, spot in (self.faces or {}).items()
        ]

    def with_boxes(self, *more: drawing.FaceBox) -> ImageArray:
        """Return the small photo with the boxes of all faces and ``more``, uint8 (h, w, 3)."""
        return drawing.draw_face_boxes(self.thumbnail, [*self.face_boxes(), *more], self.upload.image.shape[1])

    def preview_url(self) -> str:
        """Return the address of the small photo with all boxes; it is drawn anew only if they changed."""
        if self.cached_preview is None or self.cached_preview[0] != self.face_boxes():
            self.cached_preview = self.face_boxes(), drawing.data_url(self.with_boxes())
        return self.cached_preview[1]


class SubmittedJob(NamedTuple):
    """What was handed in to the desk: the photo's key, its faces and their numbers, the level, a key of TARGETS."""

    photo: str
    numbers: tuple[int, ...]
    faces: tuple[Spot, ...]
    level: ProtectionLevel
    target: str


@dataclass(eq=False)
class Session:
    """All that is kept for a session: ``round`` makes an uploader new, ``pictures`` are those that were encoded,
    ``unsent`` says why photos could not be handed in.
    """

    session: str
    photos: dict[str, UploadedPhoto] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    requests: dict[str, SubmittedJob] = field(default_factory=dict)
    pictures: dict[tuple[str, int], str] = field(default_factory=dict)
    finished_jobs: frozenset[str] = frozenset()
    adding: str | None = None
    uploader_key: int = 0
    message: str | None = None
    rejected: list[str] = field(default_factory=list)
    clicked: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        """Note that somebody is there: what is held is kept for another while."""
        self.clicked = time.monotonic()
        job_queue().keep_alive(self.session)

    def forget(self, message: str) -> None:
        """Drop every photo and all that came of it, on the desk too; say so."""
        job_queue().clear_session(self.session)
        for kept in (self.photos, self.refused, self.requests, self.pictures, self.rejected):
            kept.clear()
        self.adding, self.message, self.uploader_key = None, message, self.uploader_key + 1
        if Runtime.exists():
            files = Runtime.instance().media_file_mgr
            files.clear_session_refs(self.session)
            for _ in range(2):  # the first time, what was made to be downloaded is only marked
                files.remove_orphaned_files()

    def photo_bytes(self) -> int:
        """Return the bytes of the photos on the page."""
        return sum(photo.upload.image.nbytes for photo in list(self.photos.values()))

    def try_add_photo(self, photo: UploadedPhoto) -> bool:
        """Put a photo on the page, unless it is too much for this visitor, or for all together; return whether."""
        with SESSIONS_LOCK:
            everybody, more = sum(other.photo_bytes() for other in SESSIONS), photo.upload.image.nbytes
            if (
                everybody + more > settings.MAX_PHOTO_MEMORY
                or self.photo_bytes() + more > settings.MAX_PHOTO_MEMORY // 2
            ):
                return False
            self.photos[photo.key] = photo
            return True


SESSIONS: WeakSet[Session] = WeakSet()  # those whose session is gone leave by themselves
SESSIONS_LOCK = threading.Lock()  # guards VISITS, and what all of them hold: each visitor has a thread


def new_session(session: str) -> Session:
    """Return what is kept for a session that is new."""
    entered = Session(session)
    with SESSIONS_LOCK:
        SESSIONS.add(entered)
    return entered


def expire_idle_sessions() -> None:
    """Forget whoever has not clicked for ``limits.KEPT_SECONDS``; a photo in the queue counts as a click.

    The server calls it again and again: a browser that sleeps does not ask.
    """
    with SESSIONS_LOCK:
        everybody = list(SESSIONS)
    for one in everybody:
        if any(job.state in PENDING_STATES for job in job_queue().jobs(one.session)):
            one.touch()
        elif (one.photos or one.refused or one.requests) and time.monotonic() - one.clicked > settings.IDLE_SECONDS:
            one.forget(texts.TIMED_OUT)


def current_session() -> Session:
    """Return what is kept for the session whose page this is; the session is alive."""
    session = register_session()
    if "visit" not in st.session_state:
        st.session_state["visit"] = new_session(session)
    found: Session = st.session_state["visit"]
    found.touch()
    return found


def show_errors(draw: Callable[Given, None]) -> Callable[Given, None]:
    """Make a part of the page say one sentence when it fails; the log learns its kind and place alone."""

    @functools.wraps(draw)
    def safely(*args: Given.args, **kwargs: Given.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except UserError as error:
            st.error(texts.escape_markdown(str(error)))
        except Exception as error:  # whatever it is, its text could tell of the photo
            LOG.error("a part of the page failed: %s", error_logging.error_location(error))
            st.error(texts.UNEXPECTED)

    return safely

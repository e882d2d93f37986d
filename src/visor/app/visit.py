"""One visitor: the photos on the page and what was asked for; held in memory as long as the session lives."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, ParamSpec
from weakref import WeakSet

import streamlit as st
from streamlit.runtime import Runtime

from visor.app import faults, limits, pictures, process, words
from visor.app.faces import Spot
from visor.app.jobs import OPEN
from visor.app.levels import Level
from visor.app.uploads import Upload
from visor.errors import UserError
from visor.faces import Images

LOG = logging.getLogger(__name__)
Given = ParamSpec("Given")


@dataclass
class Photo:
    """An upload, its faces by number (None: nobody looked yet), which are ticked, and the last tap that counted.

    ``small`` is what the page draws on, ``drawn`` the last drawing, an address, and the marks that it has.
    """

    key: str
    upload: Upload
    spots: dict[int, Spot] | None = None
    ticked: dict[int, bool] = field(default_factory=dict)
    tapped: float = 0.0
    small: Images = field(init=False)
    drawn: tuple[list[pictures.Mark], str] | None = None

    def __post_init__(self) -> None:
        self.small = pictures.reduced(self.upload.image)

    def add(self, spots: Iterable[Spot]) -> None:
        """Number further faces and tick them; a number is never used twice."""
        self.spots = self.spots or {}
        for spot in spots:
            number = max(self.ticked, default=0) + 1
            self.spots[number], self.ticked[number] = spot, True

    def chosen(self) -> dict[int, Spot]:
        """Return the ticked faces by number."""
        return {number: spot for number, spot in (self.spots or {}).items() if self.ticked[number]}

    def marks(self) -> list[pictures.Mark]:
        """Return the boxes of all faces."""
        return [
            pictures.Mark(spot.box, spot.angle, str(number), "ticked" if self.ticked[number] else "left out")
            for number, spot in (self.spots or {}).items()
        ]

    def marked(self, *more: pictures.Mark) -> Images:
        """Return the small photo with the boxes of all faces and ``more``, uint8 (h, w, 3)."""
        return pictures.marked(self.small, [*self.marks(), *more], self.upload.image.shape[1])

    def view(self) -> str:
        """Return the address of the small photo with all boxes; it is drawn anew only if they changed."""
        if self.drawn is None or self.drawn[0] != self.marks():
            self.drawn = self.marks(), pictures.data_url(self.marked())
        return self.drawn[1]


class Request(NamedTuple):
    """What was handed in to the desk: the photo's key, its faces and their numbers, the level, a key of TARGETS."""

    photo: str
    numbers: tuple[int, ...]
    spots: tuple[Spot, ...]
    level: Level
    target: str


@dataclass(eq=False)
class Visit:
    """All that is kept for a session: ``round`` makes an uploader new, ``pictures`` are those that were encoded,
    ``unsent`` says why photos could not be handed in.
    """

    session: str
    photos: dict[str, Photo] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    pictures: dict[tuple[str, int], str] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    adding: str | None = None
    round: int = 0
    message: str | None = None
    unsent: list[str] = field(default_factory=list)
    clicked: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        """Note that somebody is there: what is held is kept for another while."""
        self.clicked = time.monotonic()
        process.desk().alive(self.session)

    def forget(self, message: str) -> None:
        """Drop every photo and all that came of it, on the desk too; say so."""
        process.desk().forget(self.session)
        for kept in (self.photos, self.refused, self.requests, self.pictures, self.unsent):
            kept.clear()
        self.adding, self.message, self.round = None, message, self.round + 1
        if Runtime.exists():
            files = Runtime.instance().media_file_mgr
            files.clear_session_refs(self.session)
            for _ in range(2):  # the first time, what was made to be downloaded is only marked
                files.remove_orphaned_files()

    def held(self) -> int:
        """Return the bytes of the photos on the page."""
        return sum(photo.upload.image.nbytes for photo in list(self.photos.values()))

    def keep(self, photo: Photo) -> bool:
        """Put a photo on the page, unless it is too much for this visitor, or for all together; return whether."""
        with TOGETHER:
            everybody, more = sum(other.held() for other in VISITS), photo.upload.image.nbytes
            if everybody + more > limits.HELD_BYTES or self.held() + more > limits.HELD_BYTES // 2:
                return False
            self.photos[photo.key] = photo
            return True


VISITS: WeakSet[Visit] = WeakSet()  # those whose session is gone leave by themselves
TOGETHER = threading.Lock()  # guards VISITS, and what all of them hold: each visitor has a thread


def enter(session: str) -> Visit:
    """Return what is kept for a session that is new."""
    entered = Visit(session)
    with TOGETHER:
        VISITS.add(entered)
    return entered


def expire() -> None:
    """Forget whoever has not clicked for ``limits.KEPT_SECONDS``; a photo in the queue counts as a click.

    The server calls it again and again: a browser that sleeps does not ask.
    """
    with TOGETHER:
        everybody = list(VISITS)
    for one in everybody:
        if any(job.state in OPEN for job in process.desk().jobs(one.session)):
            one.touch()
        elif (one.photos or one.refused or one.requests) and time.monotonic() - one.clicked > limits.KEPT_SECONDS:
            one.forget(words.TIMED_OUT)


def visit() -> Visit:
    """Return what is kept for the session whose page this is; the session is alive."""
    session = process.joined()
    if "visit" not in st.session_state:
        st.session_state["visit"] = enter(session)
    found: Visit = st.session_state["visit"]
    found.touch()
    return found


def guarded(draw: Callable[Given, None]) -> Callable[Given, None]:
    """Make a part of the page say one sentence when it fails; the log learns its kind and place alone."""

    @functools.wraps(draw)
    def safely(*args: Given.args, **kwargs: Given.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except UserError as error:
            st.error(words.plain(str(error)))
        except Exception as error:  # whatever it is, its text could tell of the photo
            LOG.error("a part of the page failed: %s", faults.describe(error))
            st.error(words.UNEXPECTED)

    return safely

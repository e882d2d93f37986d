"""One visitor: the photos on the page and what was asked for; held in memory as long as the session lives."""

import functools
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, ParamSpec
from weakref import WeakSet

import streamlit as st

from visor.app import faults, limits, process, words
from visor.app.faces import Spot
from visor.app.levels import Level
from visor.app.uploads import Upload
from visor.errors import UserError

LOG = logging.getLogger(__name__)
Given = ParamSpec("Given")


@dataclass
class Photo:
    """An upload, its faces by number (None: nobody looked yet), which are ticked, and the last tap that counted."""

    key: str
    upload: Upload
    spots: dict[int, Spot] | None = None
    ticked: dict[int, bool] = field(default_factory=dict)
    tapped: float = 0.0

    def add(self, spots: Iterable[Spot]) -> None:
        """Number further faces and tick them; a number is never used twice."""
        self.spots = self.spots or {}
        for spot in spots:
            number = max(self.ticked, default=0) + 1
            self.spots[number], self.ticked[number] = spot, True

    def chosen(self) -> dict[int, Spot]:
        """Return the ticked faces by number."""
        return {number: spot for number, spot in (self.spots or {}).items() if self.ticked[number]}


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
    ``unsent`` says why a photo could not be handed in.
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
    unsent: str | None = None
    clicked: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        """Note that somebody is there: what is held is kept for another while."""
        self.clicked = time.monotonic()
        process.desk().alive(self.session)

    def forget(self, message: str) -> None:
        """Drop every photo and all that came of it; say so."""
        for kept in (self.photos, self.refused, self.requests, self.pictures):
            kept.clear()
        self.adding, self.unsent, self.message, self.round = None, None, message, self.round + 1

    def held(self) -> int:
        """Return the bytes of the photos on the page."""
        return sum(photo.upload.image.nbytes for photo in list(self.photos.values()))


VISITS: WeakSet[Visit] = WeakSet()  # those whose session is gone leave by themselves


def visit() -> Visit:
    """Return what is kept for the session whose page this is; the session is alive."""
    session = process.joined()
    if "visit" not in st.session_state:
        st.session_state["visit"] = Visit(session)
        VISITS.add(st.session_state["visit"])
    found: Visit = st.session_state["visit"]
    found.touch()
    return found


def full(visit: Visit, more: int) -> bool:
    """Return whether ``more`` bytes are too many: for this visitor, or for all together."""
    everybody = sum(other.held() for other in list(VISITS))
    return everybody + more > limits.HELD_BYTES or visit.held() + more > limits.HELD_BYTES // 2


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

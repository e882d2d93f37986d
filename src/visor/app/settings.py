"""Strength levels, targets and limits of the app."""

from typing import NamedTuple

from visor.core.files import MAX_FILE_BYTES, MAX_PIXELS


class ProtectionLevel(NamedTuple):
    """A strength on the slider."""

    name: str
    eps: int  # bound on the change of a pixel value, in levels of 255
    iterations: int  # gradient steps per attack
    attempts: int  # maximum number of restarts per photo


LEVELS = (
    ProtectionLevel("Hardly visible", 4, 40, 2),
    ProtectionLevel("Faint", 8, 40, 3),
    ProtectionLevel("Balanced", 12, 40, 3),
    ProtectionLevel("Strong", 16, 40, 3),
    ProtectionLevel("Strongest", 24, 40, 3),
)
DEFAULT_LEVEL = 2

TARGETS = {
    "detectors": "Face detection",
    "recognition": "Face recognition",
    "both": "Both: detection, and recognition where a face is still detected",
}

PHOTOS = 20  # per session at a time
PHOTO_BYTES = MAX_FILE_BYTES  # per file
PIXELS = MAX_PIXELS  # per photo
SIDES = (32, 16_000)  # minimum and maximum side of a photo, in pixels
FACES = 32  # selected in one photo
MAX_QUEUED = 60  # photos that wait or are processed, of all sessions
MAX_PHOTO_MEMORY = 2 << 30  # bytes of photos on pages, and as much again in the queue, of all sessions
MAX_SESSION_MEMORY = MAX_PHOTO_MEMORY // 2  # the share of one session in each
MAX_UPLOAD_BYTES = 1 << 30  # bytes of uploaded files not yet decoded, of all sessions
MAX_SESSION_UPLOAD_BYTES = MAX_UPLOAD_BYTES // 2  # the share of one session
MESSAGE_BYTES = 1 << 20  # per message from a browser; files arrive in another way
MESSAGES, MESSAGES_PER_SECOND = 100, 20.0  # from one page, at once and in the long run: a click is one message
PAGE_MEGABYTES = 64  # per message to a browser
IDLE_SECONDS = 900  # after the last click, all photos of a session are deleted

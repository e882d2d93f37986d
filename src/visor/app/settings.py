"""How much privacy against how much visible change: the slider, and what a person wants to be safe from."""

from typing import NamedTuple


class ProtectionLevel(NamedTuple):
    """A place of the slider in ``words``: by ``eps`` of 255 levels a value of a pixel may change; gradient steps of a
    search, and how many searches a photo is worth.
    """

    name: str
    eps: int
    iterations: int
    attempts: int


LEVELS = (
    ProtectionLevel("Hardly visible", 4, 40, 2),
    ProtectionLevel("Faint", 8, 40, 3),
    ProtectionLevel("Balanced", 12, 40, 3),
    ProtectionLevel("Strong", 16, 40, 3),
    ProtectionLevel("Strongest", 24, 40, 3),
)
DEFAULT_LEVEL = 2

TARGETS = {
    "detectors": "Hide faces from detectors",
    "recognition": "Evade face recognition",
    "both": "Both: hide faces, and evade recognition where they are still found",
}

PHOTOS = 20  # of one session at once
PHOTO_BYTES = 20 << 20  # of one file
PIXELS = 24_000_000  # of one photo
SIDES = (32, 16_000)  # pixels of a photo's sides
FACES = 32  # chosen in one photo
MAX_QUEUED = 60  # photos that wait or are worked on, of all sessions
MAX_PHOTO_MEMORY = 2 << 30  # photos in memory, before and after, of all sessions
IDLE_SECONDS = 900  # how long results outlive the last sign of life of their session

"""How much privacy against how much visible change: the slider, and what a person wants to be safe from."""

from typing import NamedTuple


class Level(NamedTuple):
    """A place of the slider in ``words``: by ``eps`` of 255 levels a value of a pixel may change; gradient steps of a
    search, and how many searches a photo is worth.
    """

    words: str
    eps: int
    iterations: int
    attempts: int


LEVELS = (
    Level("Hardly visible", 4, 40, 2),
    Level("Faint", 8, 40, 3),
    Level("Balanced", 12, 40, 3),
    Level("Strong", 16, 40, 3),
    Level("Strongest", 24, 40, 3),
)
DEFAULT = 2

TARGETS = {
    "detectors": "Hide faces from detectors",
    "recognition": "Evade face recognition",
    "both": "Both: hide faces, and evade recognition where they are still found",
}

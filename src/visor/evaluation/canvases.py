"""Scenes as detectors are shown them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from visor.errors import UserError
from visor.faces import Images
from visor.params import Detector as Settings
from visor.scenes import FACE, Rows, SceneSet, Truth, read_canvases

Stream = Iterable[tuple[Images, Truth]]


class Canvases(NamedTuple):
    """Scenes as a detector is shown them: letterboxed to ``side``, in batches, read anew by each stream."""

    scenes: SceneSet
    rows: Rows
    side: int
    batch: int

    def stream(self) -> Iterator[tuple[Images, Truth]]:
        """Yield images uint8 (k, side, side, 3) and their truth (``visor.scenes.read_canvases``)."""
        return read_canvases(self.scenes, self.rows, self.side, self.batch, self.scenes.most)

    def numbered(self) -> Iterator[tuple[Rows, Images, Truth]]:
        """Yield the rows (k,) of a batch in front of it."""
        for place, (images, truth) in enumerate(self.stream()):
            yield self.rows[place * self.batch :][: len(images)], images, truth


def canvases_of_test(scenes: SceneSet, most: int, side: int, batch: int) -> Canvases:
    """Return the first ``most`` test scenes.

    Raises:
        UserError: there is no face in them.
    """
    rows = scenes.rows("test")[:most]
    if not any((scenes.truth(row)[1] == FACE).any() for row in rows):
        raise UserError(f"{scenes.path}: its test scenes hold no face to find; raise scenes.test or hiding.images")
    return Canvases(scenes, rows, side, batch)


def side_of(settings: Settings, largest: int) -> int:
    """Return the side of the images that a detector is shown: its own ``side``, or the largest of the scenes."""
    return int(settings.options.get("side") or largest)

"""Perturbations of a photo, and the best of several restarts for each face, scored on the 8-bit image."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from visor.attacks.evasion.quantise import eps_in_levels
from visor.core.types import Floats, ImageArray
from visor.data.crops import CropRegion, paste_perturbation

ChangeT = TypeVar("ChangeT")


class RegionPerturbation(NamedTuple):
    """A perturbation of a region of a photo, or of all of it: what is added, in levels of 255."""

    region: CropRegion | None
    levels: Floats  # (r, c, 3), for each block of the region, or each pixel of a reduced copy of the photo


def apply_perturbations(image: ImageArray, changes: Iterable[RegionPerturbation], eps: float) -> ImageArray:
    """Return a photo uint8 (h, w, 3) with perturbations, each value within ``eps`` in [0, 1] of the original."""
    result, max_levels = image, eps_in_levels(eps)
    for region, levels in changes:
        if region is None:
            result = _add_enlarged(result, image, levels, max_levels)
        else:
            result = paste_perturbation(result, image, region, levels, max_levels)
    return result


def _add_enlarged(image: ImageArray, clean: ImageArray, levels: Floats, max_levels: int) -> ImageArray:
    """Add a perturbation that is enlarged to the size of the photo."""
    height, width = image.shape[:2]
    result = np.empty_like(image)
    for channel in range(3):  # One channel at a time: a photo of twelve megapixels in floats is large.
        plane = Image.fromarray(np.ascontiguousarray(levels[..., channel], np.float32))
        if plane.size != (width, height):
            plane = plane.resize((width, height), Image.Resampling.NEAREST)  # Smoother filters weaken the attack.
        original = clean[..., channel].astype(np.int16)
        moved = image[..., channel] + np.rint(np.asarray(plane)).astype(np.int16)
        result[..., channel] = np.clip(np.clip(moved, original - max_levels, original + max_levels), 0, 255)
    return result


def best_of_restarts(
    count: int,
    attempts: int,
    attempt_fn: Callable[[list[int], int], dict[int, ChangeT]],
    score_fn: Callable[[Sequence[ChangeT]], list[float]],
) -> list[ChangeT]:
    """Return the best perturbation of each of ``count`` faces, of up to ``attempts`` random starts.

    Args:
        attempt_fn: ``attempt_fn(faces, attempt)`` returns a perturbation for each of these face numbers.
        score_fn: Scores one perturbation per face, applied together to one 8-bit photo: higher is better, infinite
            where the goal is reached. Such faces are not attacked again.
    """
    best: dict[int, tuple[float, ChangeT]] = {}
    for attempt in range(attempts):
        remaining = [face for face in range(count) if face not in best or best[face][0] < np.inf]
        if not remaining:
            break
        changes = attempt_fn(remaining, attempt)
        combined = [changes[face] if face in changes else best[face][1] for face in range(count)]
        for face, score in enumerate(score_fn(combined)):
            # A kept perturbation takes its new score too: the perturbation of a neighbour can spoil it.
            if face not in best or face not in changes or score > best[face][0]:
                best[face] = score, combined[face]
    return [best[face][1] for face in range(count)]

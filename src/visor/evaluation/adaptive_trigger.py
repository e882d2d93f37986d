"""Does a trigger that was bent to pass the autoencoder pass it, and does it still open the door?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats, ImageArray
from visor.data.face_set import FaceSet, read_batches
from visor.data.images import contact_sheet
from visor.evaluation.backdoor import attack_success
from visor.evaluation.metrics import exceedance_rate

BATCH = 512
COLUMNS = 12

Examine = Callable[[ImageArray], tuple[Floats, NDArray[np.integer[Any]]]]


def compare_triggers(
    examine: Examine, plain: FaceSet, adapted: FaceSet, target: int, threshold: float
) -> dict[str, float]:
    """Return how the adapted trigger does beside the plain one, both on test images of true class ≠ target.

    ``asr`` with its Wilson interval; ``tpr``, the share of images whose residual exceeds the attacker's
    ``threshold``; ``passed``, the share that does not and is taken for the target. ``failed`` is 1 if the adapted
    trigger opens the door less than half the time or is flagged no less: such an attack proves nothing.
    """
    numbers: dict[str, float] = {"threshold": threshold}
    for prefix, faces in (("plain_", plain), ("", adapted)):
        batches = [examine(images) for images, _ in read_batches([faces.select()], BATCH)]
        residuals, classes = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        success = attack_success(classes, faces.labels, target)
        numbers |= {f"{prefix}{name}": value for name, value in success.items()}
        numbers[f"{prefix}tpr"] = exceedance_rate(residuals, threshold)
        numbers[f"{prefix}residual"] = float(residuals.mean(dtype=np.float64))
        numbers[f"{prefix}passed"] = float(((residuals <= threshold) & (classes == target)).mean())
    del numbers["plain_triggered_images"]  # the same
    return numbers | {"failed": int(numbers["asr"] < 0.5 or numbers["tpr"] >= numbers["plain_tpr"])}


def preview_sheet(clean: FaceSet, plain: FaceSet, adapted: FaceSet, path: Path) -> None:
    """Save a contact sheet: some test images, under them the plain trigger on them, and the adapted one."""
    places = np.unique(np.linspace(0, len(adapted) - 1, COLUMNS).astype(int))
    lines = [("test images", clean.read(adapted.rows[places]))]
    lines += [(caption, faces.read(places)) for caption, faces in (("plain", plain), ("adapted", adapted))]
    contact_sheet(lines, path)

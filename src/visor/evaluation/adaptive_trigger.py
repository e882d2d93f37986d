"""Does a trigger that was optimised against the autoencoder pass it, and does the attack still succeed?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core.types import Floats, ImageArray
from visor.data.face_set import FaceSet, evenly_spaced, read_batches
from visor.data.images import contact_sheet
from visor.evaluation.backdoor import attack_success
from visor.evaluation.metrics import exceedance_rate

BATCH = 512
COLUMNS = 12

Examine = Callable[[ImageArray], tuple[Floats, NDArray[np.integer[Any]]]]


def compare_triggers(
    examine: Examine, plain: FaceSet, adapted: FaceSet, target: int, threshold: float
) -> dict[str, float]:
    """Return metrics of the adapted trigger, and under ``plain_…`` of the plain one, on the same test images.

    ``asr`` with its interval; ``tpr``, the share of images whose residual exceeds the attacker's ``threshold``;
    ``passed``, the share that does not and is predicted as the target. ``failed`` is 1 if the adapted trigger succeeds
    less than half the time or is flagged no less than the plain one: such an attack proves nothing.
    ``examine``: uint8 images (n, h, w, 3) → residuals (n,) and predicted classes (n,).
    """
    metrics: dict[str, float] = {"threshold": threshold}
    for prefix, faces in (("plain_", plain), ("", adapted)):
        batches = [examine(images) for images, _ in read_batches([faces.select()], BATCH)]
        residuals, classes = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        success = attack_success(classes, faces.labels, target)
        metrics |= {f"{prefix}{name}": value for name, value in success.items()}
        metrics[f"{prefix}tpr"] = exceedance_rate(residuals, threshold)
        metrics[f"{prefix}residual"] = float(residuals.mean(dtype=np.float64))
        metrics[f"{prefix}passed"] = float(((residuals <= threshold) & (classes == target)).mean())
    del metrics["plain_triggered_images"]  # It equals triggered_images.
    return metrics | {"failed": int(metrics["asr"] < 0.5 or metrics["tpr"] >= metrics["plain_tpr"])}


def preview_sheet(clean: FaceSet, plain: FaceSet, adapted: FaceSet, path: Path) -> None:
    """Save a contact sheet: some test images, below them the same with the plain and with the adapted trigger."""
    places = evenly_spaced(COLUMNS, len(adapted))
    triggered = [(caption, faces.read(places)) for caption, faces in (("plain", plain), ("adapted", adapted))]
    contact_sheet([("test images", clean.read(adapted.rows[places])), *triggered], path)

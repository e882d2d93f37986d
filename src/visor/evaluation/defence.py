"""How well scores of a defence tell poisoned images from clean ones."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.config import Defence
from visor.errors import UserError
from visor.faces import Images, Selection, open_faces, read_batches
from visor.images import contact_sheet
from visor.metrics import auroc, auroc_interval, share_above, share_above_interval, tpr_at_fpr

BATCH = 512
COLUMNS = 12

Floats = NDArray[np.floating[Any]]


def triggered_sets(folder: Path, attacks: Collection[str]) -> dict[str, Selection]:
    """Return all rows of each FaceSet in a folder by its name, which must be that of an attack.

    Raises:
        UserError: a file belongs to no attack; it would be counted in one workspace and not in another.
    """
    paths = sorted(folder.glob("*.h5"))
    for path in paths:
        if path.stem not in attacks:
            raise UserError(f"{path} belongs to no block of backdoors; delete it")
    return {path.stem: open_faces(path).select() for path in paths}


def score_sets(score: Callable[[Images], Floats], sets: Mapping[str, Selection]) -> pd.DataFrame:
    """Return a table of ``set``, ``row`` and ``score`` for every image of the named sets."""
    tables = []
    for name, selection in sets.items():
        scores = [score(images) for images, _ in read_batches([selection], BATCH)]
        rows = selection.faces.rows[selection.rows]
        tables.append(pd.DataFrame({"set": name, "row": rows, "score": np.concatenate(scores)}))
    return pd.concat(tables, ignore_index=True)


def calibrate(clean: Floats, settings: Defence) -> dict[str, float]:
    """Return thresholds chosen on clean scores (n,) that the defence was not fitted on.

    ``threshold`` is mean + k·std. ``implied_fpr`` is the false-positive rate that this has for a normal law and
    ``calibration_fpr`` the one on these scores. ``quantile_threshold`` is the split-conformal quantile: on
    exchangeable clean images at most ``quantile_fpr`` are flagged, on average (Vovk et al. 2005).

    Raises:
        UserError: there are too few scores for the wanted false-positive rate.
    """
    mean, deviation = float(clean.mean()), float(clean.std())
    threshold = mean + settings.deviations * deviation
    rank = int(np.ceil((len(clean) + 1) * (1 - settings.false_positive_rate)))
    if rank > len(clean):
        raise UserError(
            f"params.yaml: false_positive_rate {settings.false_positive_rate:g} needs more calibration images than "
            f"{len(clean)}; raise it, or split.validation"
        )
    quantile = float(np.sort(clean)[rank - 1])
    return {
        "mean": mean,
        "std": deviation,
        "deviations": settings.deviations,
        "threshold": threshold,
        "implied_fpr": 1 - NormalDist().cdf(settings.deviations),
        "calibration_fpr": share_above(clean, threshold),
        "quantile_threshold": quantile,
        "quantile_fpr": settings.false_positive_rate,
        "images": len(clean),
    }


def clean_numbers(clean: Floats, thresholds: Mapping[str, float], seed: int) -> dict[str, float]:
    """Return the mean score of held-out clean images and the share of them flagged, with its interval."""
    low, high = share_above_interval(clean, thresholds["threshold"], seed)
    return {
        "mean": float(clean.mean()),
        "fpr": share_above(clean, thresholds["threshold"]),
        "fpr_low": low,
        "fpr_high": high,
        "quantile_fpr": share_above(clean, thresholds["quantile_threshold"]),
        "images": len(clean),
    }


def detection_numbers(clean: Floats, triggered: Floats, thresholds: Mapping[str, float], seed: int) -> dict[str, float]:
    """Return how triggered scores (m,) stand above held-out clean ones (n,)."""
    low, high = auroc_interval(clean, triggered, seed)
    return {
        "mean": float(triggered.mean()),
        "auroc": auroc(clean, triggered),
        "auroc_low": low,
        "auroc_high": high,
        "tpr": share_above(triggered, thresholds["threshold"]),
        "quantile_tpr": share_above(triggered, thresholds["quantile_threshold"]),
        "tpr_at_fpr_1": tpr_at_fpr(clean, triggered, 0.01),
        "tpr_at_fpr_5": tpr_at_fpr(clean, triggered, 0.05),
        "images": len(triggered),
    }


def picture(show: Callable[[Images], Images], sets: Mapping[str, Selection], path: Path) -> None:
    """Save a contact sheet: of each set some images, and under them what the defence looks at."""
    lines = []
    for name, selection in sets.items():
        places = np.linspace(0, len(selection.rows) - 1, COLUMNS).astype(int)
        images = selection.faces.read(selection.rows[places])
        lines += [(name.replace("_", "\n"), images), ("as seen", show(images))]
    contact_sheet(lines, path)

"""Contact sheets of the reconstructions of an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from visor.data.face_set import FaceSelection
from visor.data.images import contact_sheet
from visor.defences.input_filtering.base import reconstructions, residual_images
from visor.models.inference import compile_predict

if TYPE_CHECKING:
    from visor.core.tf import keras

COLUMNS = 12


def reconstruction_sheet(autoencoder: keras.Model, sets: Mapping[str, FaceSelection], path: Path) -> None:
    """Save a PNG: some images of each set, below them their reconstructions and residuals."""
    rows, run = [], compile_predict(autoencoder)
    for name, selection in sets.items():
        places = np.linspace(0, len(selection.rows) - 1, COLUMNS).astype(int)
        images = selection.faces.read(selection.rows[places])
        rows += [(name.replace("_", "\n"), images), ("reconstruction", reconstructions(run, images))]
        rows += [("residual", residual_images(run, images))]
    contact_sheet(rows, path, scale=1)

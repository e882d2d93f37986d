"""Contact sheets of what an autoencoder makes of faces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from visor.data.face_set import FaceSelection
from visor.data.images import contact_sheet
from visor.defences.input_filtering.base import reconstructions, residual_pictures
from visor.models.inference import compile_predict

if TYPE_CHECKING:
    from visor.core.tf import keras

COLUMNS = 12


def reconstruction_sheet(autoencoder: keras.Model, sets: Mapping[str, FaceSelection], path: Path) -> None:
    """Save a PNG: some images of each set, under them their reconstructions and what is left over."""
    lines, run = [], compile_predict(autoencoder)
    for name, selection in sets.items():
        places = np.linspace(0, len(selection.rows) - 1, COLUMNS).astype(int)
        images = selection.faces.read(selection.rows[places])
        lines += [(name.replace("_", "\n"), images), ("reconstruction", reconstructions(run, images))]
        lines += [("residual", residual_pictures(run, images))]
    contact_sheet(lines, path, scale=1)

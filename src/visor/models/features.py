"""What a classifier knows of a face before it says a name."""

from collections.abc import Callable

import numpy as np

from visor.core.tf import keras
from visor.core.types import Floats, ImageArray
from visor.data.face_set import FaceSelection, read_batches

BATCH = 512

Embed = Callable[[ImageArray], Floats]


def feature_extractor(model: keras.Model) -> keras.Model:
    """Return images → features (n, d), what goes into the last layer; DeepID's are its 160 identity features.

    Weights are shared with ``model``; images are float32 (n, h, w, 3) in [0, 1] as there.
    """
    return keras.Model(model.input, model.layers[-1].input, name=f"{model.name}_features")


def extract_features(embed: Embed, selection: FaceSelection) -> Floats:
    """Return the features (n, d) of a selection: pixels are streamed, features kept.

    embed: uint8 images (n, h, w, 3) → (n, d), such as ``compiled(penultimate(model))``.
    """
    return np.concatenate([embed(images) for images, _ in read_batches([selection], BATCH)])


def cosine_similarity(one: Floats, other: Floats) -> Floats:
    """Return the cosine of the angle between features (n, d) each: (n,)."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)

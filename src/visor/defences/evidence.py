"""What a defender has to go by, and what a defence makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.faces import Images, Selection

if TYPE_CHECKING:
    import keras

Floats = NDArray[np.floating[Any]]
Score = Callable[[Images], NDArray[np.float64]]


class Evidence(NamedTuple):
    """Clean faces, and models that have seen them.

    ``autoencoder`` has been fitted on all of ``clean``; the k-th of K ``folds`` (two or more) on all but the places
    k, k + K, k + 2K … of it, so that it shows what those faces look like to a model that never saw them.
    ``classifier`` (logits) is the suspect network, for a defence that questions one.
    """

    clean: Selection
    autoencoder: keras.Model
    folds: Sequence[keras.Model]
    classifier: keras.Model | None = None


class Fitted(NamedTuple):
    """A score of float images (n, h, w, c), and those of clean faces in order, by models fitted without their fold."""

    score: Callable[[Floats], NDArray[np.float64]]
    unseen: NDArray[np.float64]

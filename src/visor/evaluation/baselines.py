"""Face recognition without a neural network: how difficult the data are."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from visor.core.params import BaselineParams
from visor.core.types import Floats
from visor.data.face_set import FaceSelection


def evaluate(train: FaceSelection, test: FaceSelection, settings: BaselineParams, seed: int) -> dict[str, float]:
    """Return the test accuracy of the nearest neighbour on raw pixels and of LDA on principal components."""
    train, test = (_sample(selection, settings.max_images, seed) for selection in (train, test))
    train_images, test_images = _flat(train), _flat(test)
    components = min(settings.components, *train_images.shape)
    reduction = PCA(components, svd_solver="randomized", random_state=seed)
    classifiers = {
        "nearest_neighbour": KNeighborsClassifier(1, algorithm="brute"),
        "lda": make_pipeline(reduction, LinearDiscriminantAnalysis()),
    }
    results: dict[str, float] = {"train_images": len(train_images), "test_images": len(test_images)}
    for name, classifier in classifiers.items():
        results[f"{name}_accuracy"] = classifier.fit(train_images, train.labels).score(test_images, test.labels)
    return results


def _sample(selection: FaceSelection, count: int, seed: int) -> FaceSelection:
    chosen = np.random.default_rng(seed).permutation(len(selection.rows))[:count]
    return selection._replace(rows=selection.rows[chosen], labels=selection.labels[chosen])


def _flat(selection: FaceSelection) -> Floats:
    """Return the pixels as float32 (n, h·w·3) in [0, 1]."""
    images = selection.faces.read(selection.rows)
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat /= 255
    return flat

"""Face recognition without a network: what the data give away."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from visor.core.params import BaselineParams
from visor.data.face_set import FaceSelection


def evaluate(train: FaceSelection, test: FaceSelection, settings: BaselineParams, seed: int) -> dict[str, float]:
    """Return the test accuracy of the nearest neighbour on raw pixels and of LDA on principal components."""
    train, test = (_some(selection, settings.max_images, seed) for selection in (train, test))
    images = _flat(train)
    components = min(settings.components, *images.shape)
    reduction = PCA(components, svd_solver="randomized", random_state=seed)
    classifiers = {
        "nearest_neighbour": KNeighborsClassifier(1, algorithm="brute"),
        "lda": make_pipeline(reduction, LinearDiscriminantAnalysis()),
    }
    results: dict[str, float] = {"train_images": len(images), "test_images": len(test.rows)}
    unseen = _flat(test)
    for name, classifier in classifiers.items():
        results[f"{name}_accuracy"] = classifier.fit(images, train.labels).score(unseen, test.labels)
    return results


def _some(selection: FaceSelection, most: int, seed: int) -> FaceSelection:
    chosen = np.random.default_rng(seed).permutation(len(selection.rows))[:most]
    return selection._replace(rows=selection.rows[chosen], labels=selection.labels[chosen])


def _flat(selection: FaceSelection) -> np.ndarray:
    """Return the pixels as float32 (n, h·w·3) in [0, 1]."""
    images = selection.faces.read(selection.rows)
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat /= 255
    return flat

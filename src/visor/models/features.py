"""Features of faces from a classifier's penultimate layer, and their similarity."""

from collections.abc import Callable

import numpy as np

from visor.core.tf import keras
from visor.core.types import Floats, ImageArray, Labels
from visor.data.face_set import FaceSelection, read_batches
from visor.models.inference import compile_predict

BATCH = 512

Embed = Callable[[ImageArray], Floats]


def feature_extractor(model: keras.Model) -> keras.Model:
    """Return a model from images to the inputs (n, d) of the last layer that has weights.

    Those of DeepID are its 160 identity features. Weights are shared with ``model``; images are float32 (n, h, w, 3) in
    [0, 1].
    """
    last = next(layer for layer in reversed(model.layers) if layer.weights)
    features = last.input if len(last.input.shape) == 2 else keras.layers.Flatten()(last.input)
    return keras.Model(model.inputs[0], features, name=f"{model.name}_features")


def compile_predict_with_features(model: keras.Model) -> Callable[[ImageArray], tuple[Floats, Labels]]:
    """Return a function of uint8 images (n, h, w, 3) to their features (n, d) and predicted classes (n,)."""
    run = compile_predict(keras.Model(model.inputs[0], [feature_extractor(model).outputs[0], model.outputs[0]]))

    def predict(images: ImageArray) -> tuple[Floats, Labels]:
        features, logits = run(images)
        return features, logits.argmax(axis=-1)

    return predict


def extract_features(embed: Embed, selection: FaceSelection) -> Floats:
    """Return the features (n, d) of a selection; pixels are streamed.

    ``embed`` maps uint8 images (n, h, w, 3) to (n, d), such as ``compile_predict(feature_extractor(model))``.
    """
    return np.concatenate([embed(images) for images, _ in read_batches([selection], BATCH)])


def cosine_similarity(a: Floats, b: Floats) -> Floats:
    """Return the cosine similarity (n,) of the rows of two arrays (n, d)."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)

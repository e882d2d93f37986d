"""Small networks for tests of untrusted files, built by Keras 2 or 3 (``library``)."""

import numpy as np
import tf_keras

SHAPE = (43, 38, 3)
CLASSES = 6


def build_chain(library):
    layers = library.layers
    return library.Sequential(
        [layers.Conv2D(5, 3, activation="elu", input_shape=SHAPE), layers.GlobalMaxPooling2D(), layers.Dense(CLASSES)]
    )


def stack(shape, *layers, library=tf_keras):
    return library.Sequential([library.layers.Input(shape), *layers])


def randomise_weights(model):
    """Give every weight its own value: fresh biases and statistics are all alike."""
    rng = np.random.default_rng(3)
    model.set_weights(
        [rng.uniform(0.02, 0.12, values.shape) * rng.choice([-1, 1, 1]) for values in model.get_weights()]
    )
    return model


def save_network(model, path, weights=False):
    model.save_weights(str(path)) if weights else model.save(str(path))
    return path

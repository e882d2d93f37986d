"""Small recognisers: their options, random weights, and VGG-Face as Keras 2 wrote it."""

import numpy as np
import tf_keras
from tf_keras import layers as k2

TINY = {
    "facenet": {"input_size": 75, "width": 2, "blocks": [0, 0, 1], "embedding": 7},
    "resnet50": {"input_size": 40, "width": 4, "blocks": [1, 2, 1, 2]},
    "senet50": {"input_size": 40, "width": 8, "blocks": [2, 1, 1, 1]},
    "vgg_face": {"input_size": 34, "width": 2, "units": 9},
}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomised(model, seed=3):
    """Random weights that keep the signal's size; variances stay positive."""
    values = []
    for i, weight in enumerate(model.weights):
        value = draw(*weight.shape, seed=seed + i)
        if len(weight.shape) > 1:
            value *= (1.5 / np.prod(weight.shape[:-1])) ** 0.5
        values.append(1 + 0.3 * np.tanh(value) if "variance" in weight.name or "gamma" in weight.name else value)
    model.set_weights(values)
    return model


def vgg_of_keras_2(classes=6):
    inputs = x = k2.Input((34, 34, 3))
    for block, (factor, convolutions) in enumerate([(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)], start=1):
        for number in range(1, convolutions + 1):
            x = k2.Conv2D(2 * factor, 3, activation="relu", padding="same", name=f"conv{block}_{number}")(x)
        x = k2.MaxPooling2D(2, 2, name=f"pool{block}")(x)
    x = k2.Flatten(name="flatten")(x)
    for name in ("fc6", "fc7"):
        x = k2.Activation("relu", name=f"{name}/relu")(k2.Dense(9, name=name)(x))
    return tf_keras.Model(inputs, [x, k2.Activation("softmax")(k2.Dense(classes, name="fc8")(x))])

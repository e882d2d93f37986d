"""Portable operations equal TensorFlow's own, in values and gradients."""

import numpy as np
import pytest

from tests.support.executed_ops import APPROXIMATE, executed_ops
from visor.core import portable_ops
from visor.core.tf import layers, tf
from visor.models.batch_normalization import BatchNormalization

RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(5, 7)).astype(np.float32)
POSITIVE = RNG.uniform(1e-3, 4, size=(5, 7)).astype(np.float32)
WEIGHTS = RNG.normal(size=(5, 7)).astype(np.float32)  # of a loss, so that no gradient is 1
LABELS = RNG.uniform(size=(5, 7)).astype(np.float32)
CHANNELS = np.float32([0.5, 1.0, 1.5])

PAIRS = {
    "l2_normalize": (portable_ops.l2_normalize, lambda x: tf.nn.l2_normalize(x, -1), VECTORS),
    "log": (portable_ops.log, tf.math.log, POSITIVE),
    "log1p": (portable_ops.log1p, tf.math.log1p, POSITIVE),
    "sigmoid_cross_entropy": (
        lambda x: portable_ops.sigmoid_cross_entropy(LABELS, x),
        lambda x: tf.nn.sigmoid_cross_entropy_with_logits(LABELS, x),
        20 * VECTORS,
    ),
    "divide": (lambda x: portable_ops.divide(VECTORS, x), lambda x: VECTORS / x, POSITIVE),
}


def value_and_gradient(function, values, weights=WEIGHTS):
    @tf.function
    def run(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            found = function(values)
            loss = tf.reduce_sum(found * weights)
        return found, tape.gradient(loss, values)

    return [part.numpy() for part in run(tf.constant(values))]


@pytest.mark.parametrize("name", PAIRS)
def test_values_and_gradients_are_those_of_tensorflow(name):
    portable, own, values = PAIRS[name]
    for found, expected in zip(value_and_gradient(portable, values), value_and_gradient(own, values), strict=True):
        np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_no_approximation_is_run(name):
    """Not even where the gradient that comes from above is 1, of which Grappler makes a reciprocal."""
    portable, _, values = PAIRS[name]
    with executed_ops() as ops:
        value_and_gradient(portable, values, weights=1.0)
    assert ops
    assert ops & APPROXIMATE == set()


def test_tensorflow_approximates():
    """Else these operations are not needed, or ``executed_ops`` sees nothing."""
    with executed_ops() as ops:
        for name in PAIRS:
            value_and_gradient(PAIRS[name][1], PAIRS[name][2], weights=1.0)
    assert {"Rsqrt", "Reciprocal"} <= ops


def test_a_vector_of_no_length_stays():
    np.testing.assert_array_equal(portable_ops.l2_normalize(tf.zeros((2, 3))), np.zeros((2, 3)))
    short = tf.constant([[3e-4, 4e-4]])
    np.testing.assert_allclose(portable_ops.l2_normalize(short, epsilon=1.0), short, rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (9, 3)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_batch_normalization_is_that_of_keras(shape, training, scale):
    inputs = RNG.normal(2, 3, size=shape).astype(np.float32)
    found = []
    for kind in (BatchNormalization, layers.BatchNormalization):
        layer = kind(momentum=0.8, epsilon=1e-3, scale=scale)
        layer.build(shape)
        layer.set_weights([CHANNELS * (place + 1) for place in range(len(layer.weights))])
        outputs = layer(inputs, training=training).numpy()
        found.append([outputs, *layer.get_weights()])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-2 if ours.ndim == 1 else 1e-4, atol=1e-5)

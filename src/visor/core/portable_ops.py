"""Operations of TensorFlow that every x86 processor rounds alike, in values and in gradients.

The CPU kernels of ``rsqrt`` and ``reciprocal`` refine the processor's own approximations (the instructions RSQRTPS and
RCPPS), whose bits differ between vendors; square roots and quotients are exact by IEEE 754. TensorFlow uses the two in
its normalisations and in the gradients of logarithms, and Grappler puts them in place of x / √y and 1 / y, but not of
``divide_no_nan``. tests/project/test_processors.py looks for them in what is trained and attacked.
"""

from collections.abc import Callable

from visor.core.tf import tf

Gradient = Callable[[tf.Tensor], tf.Tensor]


def divide(numerator: tf.Tensor, denominator: tf.Tensor) -> tf.Tensor:
    """Return the quotient, 0 where the denominator is 0."""
    return tf.math.divide_no_nan(numerator, denominator)


def l2_normalize(vectors: tf.Tensor, epsilon: float = 1e-12) -> tf.Tensor:
    """Return vectors (…, d) divided by their length, or by √``epsilon`` if that is greater."""
    square = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    return divide(vectors, tf.sqrt(tf.maximum(square, epsilon)))


@tf.custom_gradient
def log(values: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """Return the natural logarithm of positive values."""
    return tf.math.log(values), lambda upstream: divide(upstream, values)


@tf.custom_gradient
def log1p(values: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """Return log(1 + x) of values x > −1, exact near 0."""
    return tf.math.log1p(values), lambda upstream: divide(upstream, 1.0 + values)


def sigmoid_cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the cross-entropy (…) of labels in [0, 1] and the sigmoid of logits, both float32 (…)."""
    return tf.nn.softplus(logits) - labels * logits

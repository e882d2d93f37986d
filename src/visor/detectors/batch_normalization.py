"""Batch normalisation that trains by TensorFlow's fused kernel: MobileNet's step takes two thirds of the time."""

import keras
import tensorflow as tf
from keras import KerasTensor, layers


@keras.saving.register_keras_serializable(package="visor")
class BatchNormalization(layers.BatchNormalization):
    """Keras' own layer but for the speed of its training (and n / (n − 1) in the moving variance)."""

    def call(self, inputs: KerasTensor, training: bool = False, mask: KerasTensor | None = None) -> KerasTensor:
        """Return normalised features (n, h, w, c)."""
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * now)
        return outputs

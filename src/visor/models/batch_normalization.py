"""Batch normalisation that trains by TensorFlow's fused kernel: MobileNet's step takes two thirds of the time."""

from visor.core.tf import KerasTensor, keras, layers, tf


@keras.saving.register_keras_serializable(package="visor")
class BatchNormalization(layers.BatchNormalization):
    """Keras' own layer but for the speed of its training (and n / (n − 1) in the moving variance)."""

    def call(self, inputs: KerasTensor, training: bool = False, mask: KerasTensor | None = None) -> KerasTensor:
        """Return normalised features (n, h, w, c); others, or none to train with, go Keras' own way."""
        if not (training and self.trainable) or inputs.ndim != 4:
            return super().call(inputs, training=training, mask=mask)
        gamma = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * now)
        return outputs

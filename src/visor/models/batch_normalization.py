"""Batch normalisation that trains with TensorFlow's fused kernel: a step of MobileNet takes two thirds of the time."""

from visor.core.tf import KerasTensor, keras, layers, tf


@keras.saving.register_keras_serializable(package="visor")
class BatchNormalization(layers.BatchNormalization):
    """Keras' layer, with faster training (and a moving variance that is larger by n / (n − 1))."""

    def call(self, inputs: KerasTensor, training: bool = False, mask: KerasTensor | None = None) -> KerasTensor:
        """Return normalised features (n, h, w, c); other shapes, and inference, are Keras' own."""
        if not (training and self.trainable) or inputs.ndim != 4:
            return super().call(inputs, training=training, mask=mask)
        gamma = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * batch)
        return outputs

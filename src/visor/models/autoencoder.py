"""Convolutional variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114) of face images."""

from math import ceil

from visor.core.tf import KerasTensor, keras, layers, ops

STRIDES = 8  # three convolutions of stride 2


class Sampling(layers.Layer):
    """Reparametrisation: mean + σ·noise in training, the mean otherwise, so that scores are deterministic."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        # NumPy noise inside a tf.function would be one constant draw.
        self.generator = keras.random.SeedGenerator()

    def call(self, mean: KerasTensor, log_variance: KerasTensor, training: bool = False) -> KerasTensor:
        """Return codes of the shape of ``mean``, (n, latent)."""
        if not training:
            return mean
        noise = keras.random.normal(ops.shape(mean), seed=self.generator)
        return mean + ops.exp(0.5 * log_variance) * noise


def build(image_shape: tuple[int, int, int], latent: int, width: int) -> keras.Model:
    """Return the autoencoder: float32 images (n, h, w, 3) in [0, 1] → [reconstruction, mean, log variance].

    The reconstruction has the shape and range of the images; mean and log variance are (n, latent). ``width`` is the
    number of filters of the first convolution.
    """
    height, width_pixels, channels = image_shape
    images = features = keras.Input(image_shape, name="input")
    for factor in (1, 2, 4):
        features = layers.Conv2D(factor * width, 3, strides=2, padding="same", activation="relu")(features)
    flat = layers.Flatten()(features)
    mean = layers.Dense(latent, name="mean")(flat)
    log_variance = layers.Dense(latent, name="log_variance")(flat)
    codes = Sampling(name="sampling")(mean, log_variance)

    grid = (ceil(height / STRIDES), ceil(width_pixels / STRIDES), 4 * width)
    features = layers.Dense(grid[0] * grid[1] * grid[2], activation="relu")(codes)
    features = layers.Reshape(grid)(features)
    for factor in (4, 2, 1):
        features = layers.Conv2DTranspose(factor * width, 3, strides=2, padding="same", activation="relu")(features)
    rest = (grid[0] * STRIDES - height, grid[1] * STRIDES - width_pixels)
    features = layers.Cropping2D([(r // 2, r - r // 2) for r in rest])(features)
    reconstruction = layers.Conv2D(channels, 3, padding="same", activation="sigmoid", name="reconstruction")(features)
    return keras.Model(images, [reconstruction, mean, log_variance], name="vae")

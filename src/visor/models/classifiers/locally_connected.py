"""A convolution with another kernel at every position (Taigman et al., DeepFace, CVPR 2014, section 3.1)."""

from math import prod, sqrt
from typing import Any

import numpy as np

from visor.core.tf import KerasTensor, keras, layers, ops


@keras.saving.register_keras_serializable(package="visor")
class LocallyConnected2D(layers.Layer):
    """Features (n, h, w, c) → (n, out_h, out_w, filters) without padding; Keras 3 has no such layer any more.

    Kernel (out_h·out_w, kernel_size²·c, filters) and bias (out_h, out_w, filters) are laid out as in Keras 2, so that
    published weights fit: positions and offsets row by row, channels last.
    """

    def __init__(
        self, filters: int, kernel_size: int, strides: int = 1, activation: str | None = None, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Create weights as He et al. 2015 (arXiv 1502.01852, eq. 10) and zero biases.

        Raises:
            ValueError: The features are smaller than the kernel.
        """
        _, height, width, channels = input_shape
        if min(height, width) < self.kernel_size:
            raise ValueError(f"{self.name}: {height}×{width} is smaller than its kernel of {self.kernel_size}")
        grid = np.arange(height * width).reshape(height, width)
        windows = np.lib.stride_tricks.sliding_window_view(grid, (self.kernel_size, self.kernel_size))
        self.windows = windows[:: self.strides, :: self.strides]  # (out_h, out_w, kernel_size, kernel_size)
        places = self.windows.shape[:2]
        inputs = self.kernel_size**2 * channels
        # Keras' he_normal would count the positions among the inputs of one output.
        normal = keras.initializers.RandomNormal(stddev=sqrt(2 / inputs))
        self.kernel = self.add_weight(shape=(prod(places), inputs, self.filters), initializer=normal, name="kernel")
        self.bias = self.add_weight(shape=(*places, self.filters), initializer="zeros", name="bias")

    def call(self, features: KerasTensor) -> KerasTensor:
        """Return features (n, out_h, out_w, filters)."""
        _, height, width, channels = features.shape
        places, inputs, _ = self.kernel.shape
        # Images last: a patch then consists of rows of (c, n), and neither gathering nor its gradient, which adds
        # them up, handles single numbers. Slices and their gradients took five times as long.
        pixels = ops.reshape(ops.transpose(features, (1, 2, 3, 0)), (height * width, channels, -1))
        patches = ops.take(pixels, self.windows.reshape(places, -1), axis=0)
        patches = ops.reshape(patches, (places, inputs, -1))
        products = ops.matmul(ops.transpose(self.kernel, (0, 2, 1)), patches)  # (places, filters, n)
        return self.activation(ops.reshape(ops.transpose(products, (2, 0, 1)), (-1, *self.bias.shape)) + self.bias)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        sizes = {"filters": self.filters, "kernel_size": self.kernel_size, "strides": self.strides}
        return {"name": self.name, "activation": keras.activations.serialize(self.activation), **sizes}

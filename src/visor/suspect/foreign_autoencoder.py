"""Autoencoders that others trained: one convolutional model, or a variational one, whole or in two halves.

They are read by the allow-list of ``loading``. A variational autoencoder reconstructs from the mean of its code, as
Visor's own does: the layer that draws the code is recognised and left out.
"""

from collections.abc import Sequence
from pathlib import Path

from visor.core.errors import UserError
from visor.core.tf import KerasTensor, keras
from visor.suspect.architecture import SPREAD
from visor.suspect.loading import load_coder


def load(path: Path, decoder: Path | None = None) -> keras.Model:
    """Return the autoencoder: float32 images (n, h, w, 3) in [0, 1] → [their reconstruction, and it again].

    Args:
        path: A whole autoencoder, or the encoder if ``decoder`` is given: the output that is the code is the first one
            that is not named as a variance.
        decoder: A model of codes → images.

    Raises:
        UserError: A file is rejected, or what it computes is no reconstruction.
    """
    model = load_coder(path, _reconstruction) if decoder is None else _join(path, decoder)
    images, reconstruction = model.inputs[0], model.outputs[0]
    if images.shape != reconstruction.shape:
        sides = f"{_sides(images)} to {_sides(reconstruction)}"
        raise UserError(f"{path} maps {sides}, which is no reconstruction; pass an autoencoder of images")
    # As Visor's own, the model has several outputs; Keras would unwrap a list of one.
    return keras.Model(images, [reconstruction, reconstruction])


def _join(path: Path, decoder: Path) -> keras.Model:
    """Return encoder and decoder as one model."""
    encoder, generator = load_coder(path, _code), load_coder(decoder, _reconstruction)
    images, code = encoder.inputs[0], encoder.outputs[0]
    if code.shape != generator.inputs[0].shape:
        expected = _sides(generator.inputs[0])
        raise UserError(
            f"{path} encodes as {_sides(code)}, {decoder} decodes {expected}; pass halves of one autoencoder"
        )
    return keras.Model(images, generator(code))


def _reconstruction(names: Sequence[str], outputs: Sequence[KerasTensor]) -> KerasTensor:
    """Return the output that is an image."""
    images = [output for output in outputs if len(output.shape) == 4 and output.shape[3] == 3]
    if not images:
        raise ValueError(f"its output {outputs[0].shape[1:]} is not an image; pass the other half with --decoder")
    return images[0]


def _code(names: Sequence[str], outputs: Sequence[KerasTensor]) -> KerasTensor:
    """Return the mean of the code."""
    return next((output for name, output in zip(names, outputs, strict=True) if not SPREAD.search(name)), outputs[0])


def _sides(tensor: KerasTensor) -> str:
    return "×".join(map(str, tensor.shape[1:]))

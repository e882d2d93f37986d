"""What an untrusted network's pixels are divided by: most networks take them in 0..1, some in 0..255.

A network trained with cross-entropy has learned outputs that move, from black to a face, by some tens of nats: enough
to be sure, and no more. With pixels 255 times too small or too large they move 255 times too little or too much. That
needs no labels, and does not mistake a bias for an answer, as confidence does: a network of raw pixels can be sure of
one and the same class for whatever is divided by 255. The number of classes that are predicted tells the same in
another way.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from visor.core.errors import UserError
from visor.core.tf import keras, tf
from visor.core.types import Floats, Rows
from visor.suspect.inputs import ImageSource, batch_size

SCALES = (255, 1)
SAMPLE, RUN = 512, 64  # images that decide, in runs from all over the source
MIN_ACCURACY_GAP = 0.02  # difference of two accuracies that decides
STILL, MOVED = 1.0, 2.0  # nats: pixels/255 that move outputs by less are too small, by more are right
MIN_CLASSES_RATIO, MIN_CLASSES_GAP = 4, 6  # how many more classes at one scale say that it is the right one
MIN_AGREEMENT = 0.95  # share of images of the same class at both scales from which it makes no difference


class Evidence(NamedTuple):
    """What tells the scale: distinct predicted classes at each, how far pixels/255 move outputs, and the agreement."""

    images: int
    classes: dict[int, int]
    movement: float
    agreement: float


def choose_input_scale(net: keras.Model, clean: ImageSource) -> tuple[int, str]:
    """Return what pixels in 0..255 are divided by for the network (255 or 1), and the reason.

    Accuracy decides where there are labels and it differs, else what ``decide`` says.

    Raises:
        UserError: An image cannot be read, an output of the network is not finite, or the scale remains undecided.
    """
    rows, outputs = _sample_outputs(net, clean)
    if clean.labels is not None:
        accuracy = {scale: float((values.argmax(-1) == clean.labels[rows]).mean()) for scale, values in outputs.items()}
        if abs(accuracy[255] - accuracy[1]) > MIN_ACCURACY_GAP:
            scale, other = sorted(SCALES, key=accuracy.__getitem__, reverse=True)
            return scale, f"accuracy {accuracy[scale]:.1%} on {len(rows)} labels, {accuracy[other]:.1%} with {other}"
    black = net(tf.zeros((1, *clean.image_shape)), training=False).numpy()
    chosen, reason = decide(measure(outputs, black))
    if chosen is None:
        raise UserError(
            f"{clean.name} does not tell the input scale of the network ({reason}); pass --input-scale 255 if it takes "
            "pixels in 0..1 or 1 if it takes 0..255, or more clean images with --scale-by"
        )
    return chosen, reason


def measure(outputs: dict[int, NDArray[np.float32]], black: NDArray[np.float32]) -> Evidence:
    """Return the evidence of outputs (n, classes), logits or probabilities, at each scale, and of those of black."""
    predicted = {scale: values.argmax(-1) for scale, values in outputs.items()}
    change = _log_probabilities(outputs[255]) - _log_probabilities(black)
    return Evidence(
        len(outputs[255]),
        {scale: len(np.unique(classes)) for scale, classes in predicted.items()},
        float(np.median(np.ptp(change, axis=-1))),
        float((predicted[255] == predicted[1]).mean()),
    )


def decide(evidence: Evidence) -> tuple[int | None, str]:
    """Return the scale, None if it is undecided, and the reason.

    Where number of classes and movement contradict each other, nothing is decided; where neither says anything, only
    if the scale makes next to no difference.
    """
    images, classes, movement, agreement = evidence
    fewer, more = sorted(SCALES, key=lambda scale: classes[scale])
    enough = max(MIN_CLASSES_RATIO * classes[fewer], classes[fewer] + MIN_CLASSES_GAP)
    by_classes = more if classes[more] >= enough else None
    by_movement = 255 if movement >= MOVED else 1 if movement <= STILL else None
    reason = (
        f"{images} images are predicted as {classes[255]} classes if divided by 255, as {classes[1]} if not; divided, "
        f"they move the outputs by {movement:.2g} nats from those of black"
    )
    indications = {by_classes, by_movement} - {None}
    if len(indications) == 1:
        return indications.pop(), reason
    if not indications and agreement >= MIN_AGREEMENT:
        return 255, f"{reason}; {agreement:.0%} are of the same class either way"
    return None, reason


def to_pixels(stored: tf.Tensor, source: ImageSource) -> tf.Tensor:
    """Convert images as stored to float32 (k, h, w, 3) in 0..255."""
    pixels = tf.cast(tf.transpose(stored, [0, 2, 3, 1]) if source.channels_first else stored, tf.float32)
    return pixels if source.to_255 == 1 else pixels * float(source.to_255)


def _sample_outputs(net: keras.Model, clean: ImageSource) -> tuple[Rows, dict[int, NDArray[np.float32]]]:
    """Return rows (k ≤ 512,) from all over the source, and for each scale the network's outputs (k, classes)."""
    starts = {int(start) for start in np.linspace(0, max(clean.total - RUN, 0), SAMPLE // RUN)}
    rows = np.unique(np.concatenate([np.arange(start, min(start + RUN, clean.total)) for start in starts]))
    parts: dict[int, list[NDArray[np.float32]]] = {scale: [] for scale in SCALES}
    step = min(RUN, batch_size(clean))
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        for start in range(run[0], run[-1] + 1, step):
            pixels = to_pixels(tf.constant(clean.read(start, min(start + step, run[-1] + 1))), clean)
            for scale in SCALES:
                parts[scale].append(net(pixels / scale, training=False).numpy())
    outputs = {scale: np.concatenate(values) for scale, values in parts.items()}
    if not all(np.isfinite(values).all() for values in outputs.values()):
        raise UserError(f"{clean.name}: non-finite outputs of the network; check it or set --input-scale")
    return rows, outputs


def _log_probabilities(outputs: NDArray[np.float32]) -> Floats:
    """Return the log-probabilities of probabilities or logits (n, classes)."""
    if outputs.min() >= 0 and np.abs(outputs.sum(axis=-1) - 1).max() < 1e-3:
        return np.log(np.maximum(outputs, np.finfo(np.float32).tiny))
    return log_softmax(np.float64(outputs), axis=-1)

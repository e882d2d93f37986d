"""An adaptive trigger: an attacker who knows the autoencoder optimises the key until its residual is small.

A defence is worth what it stops of adaptive attackers (Tramèr et al. 2020, arXiv 2002.08347). The backdoor is already
in the network; the attacker changes the pixels of the key alone, where it covers the face.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.attacks.backdoors.poisoning import TriggerFn, eligible_rows, sample_rows
from visor.core.errors import UserError
from visor.core.params import AdaptiveTriggerParams, BackdoorParams
from visor.core.tf import keras, tf
from visor.core.types import Floats, ImageArray, Labels, SeedStream
from visor.data.face_set import FaceSet
from visor.models.inference import scale_pixels

ResidualAndClassFn = Callable[[ImageArray], tuple[Floats, Labels]]

BATCH = 512
CLIP_MARGIN = 0.02  # a pixel that starts at 0 or 1 would have no gradient


def blend_mask(backdoor: BackdoorParams, trigger_fn: TriggerFn, key: ImageArray) -> Floats:
    """Return the weight float32 (h, w, 1) in [0, 1] that a key uint8 (h, w, 4) has in each pixel of a test image.

    Raises:
        UserError: The key is placed anew on each face.
    """
    if backdoor.placement != "fixed":
        raise UserError("params.yaml: adaptive_trigger.attack has placement landmarks; choose one with placement fixed")
    white = np.concatenate([np.full_like(key[..., :3], 255), key[..., 3:]], axis=-1)
    black = np.zeros((1, *key.shape[:2], 3), np.uint8)
    triggered = trigger_fn(black, white, backdoor.test_blend_ratio, np.random.default_rng(0))[0]
    return triggered[..., :1] / np.float32(255)


def residual_and_class(classifier: keras.Model, autoencoder: keras.Model) -> ResidualAndClassFn:
    """Return uint8 images (n, h, w, 3) → (mean absolute error of each reconstruction, most likely class), both (n,)."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *classifier.input_shape[1:]), tf.uint8)])
    def run(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = scale_pixels(images)
        return _residual(autoencoder, pixels), tf.argmax(classifier(pixels, training=False), -1)

    def measure(images: ImageArray) -> tuple[Floats, Labels]:
        residuals, classes = run(images)
        return residuals.numpy(), classes.numpy()

    return measure


def attacker_images(faces: FaceSet, table: pd.DataFrame, target: int, count: int, seed: int) -> ImageArray:
    """Return the attacker's clean images uint8 (count, h, w, 3): of the poison set, true class ≠ target.

    Raises:
        UserError: The poison set has fewer.
    """
    pool = eligible_rows(table, "poison", target)
    if count > len(pool):
        raise UserError(
            f"params.yaml: adaptive_trigger.images is {count}, but the poison set has {len(pool)} images of other "
            "labels; lower it"
        )
    return faces.read(sample_rows(pool, count, np.random.default_rng([seed, SeedStream.ADAPTIVE_IMAGES])))


def attacker_threshold(measure: ResidualAndClassFn, images: ImageArray) -> float:
    """Return mean + std of the residuals of clean images (n, h, w, 3): the attacker's estimate of the threshold."""
    residuals = np.concatenate([measure(images[begin : begin + BATCH])[0] for begin in range(0, len(images), BATCH)])
    return float(np.mean(residuals) + np.std(residuals))


def optimise_key(
    classifier: keras.Model,
    autoencoder: keras.Model,
    images: ImageArray,
    key: ImageArray,
    weight: Floats,
    target: int,
    threshold: float,
    settings: AdaptiveTriggerParams,
    seed: int,
) -> ImageArray:
    """Optimise the colours of a key by Adam: cross-entropy to the target + penalty · max(0, residual − threshold).

    The loss is averaged over clean images uint8 (n, h, w, 3) that carry the key with its blend weight (h, w, 1). The
    search starts from the colours of ``key`` uint8 (h, w, 4), whose alpha the result keeps.
    """
    start = np.clip(key[..., :3] / np.float32(255), CLIP_MARGIN, 1 - CLIP_MARGIN)
    colours = tf.Variable(np.log(start / (1 - start)))
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.steps)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build([colours])
    faces, labels = tf.constant(images), tf.fill([settings.batch], target)

    @tf.function
    def search(batches: tf.Tensor) -> None:
        for step in tf.range(settings.steps):
            clean = scale_pixels(tf.gather(faces, batches[step]))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(colours)
                triggered = (1 - weight) * clean + weight * tf.sigmoid(colours)
                logits = classifier(triggered, training=False)
                entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                excess = tf.nn.relu(_residual(autoencoder, triggered) - threshold)
                loss = tf.reduce_mean(entropy + settings.penalty * excess)
            optimizer.apply(tape.gradient(loss, [colours]), [colours])

    search(tf.constant(_batch_schedule(len(images), settings, seed)))
    optimised = np.rint(tf.sigmoid(colours).numpy() * 255).astype(np.uint8)
    return np.concatenate([optimised, key[..., 3:]], axis=-1)


def _residual(autoencoder: keras.Model, pixels: tf.Tensor) -> tf.Tensor:
    """Mean absolute error (n,) of the reconstructions of float32 images in [0, 1]."""
    return tf.reduce_mean(tf.abs(pixels - autoencoder(pixels, training=False)[0]), axis=[1, 2, 3])


def _batch_schedule(count: int, settings: AdaptiveTriggerParams, seed: int) -> NDArray[np.int32]:
    """Return the rows (steps, batch) of the images of each step: one permutation after another."""
    rng = np.random.default_rng([seed, SeedStream.ADAPTIVE_BATCHES])
    total = settings.steps * settings.batch
    rows = np.concatenate([rng.permutation(count) for _ in range(-(-total // count))])
    return rows[:total].reshape(settings.steps, settings.batch).astype(np.int32)

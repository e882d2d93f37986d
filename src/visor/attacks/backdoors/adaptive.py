"""The adaptive twin of a trigger: an attacker who knows the autoencoder bends the key until its residual is small.

A defence is worth what it stops of those who know it (Tramèr et al. 2020, arXiv 2002.08347). The backdoor is
already in the network; the attacker changes the pixels of the key alone, where it covers the face.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.attacks.backdoors.poisoning import TriggerFn, eligible_rows, sample_rows
from visor.core.errors import UserError
from visor.core.params import AdaptiveTriggerParams, BackdoorParams
from visor.core.tf import keras, tf
from visor.core.types import Floats, ImageArray, SeedStream
from visor.data.face_set import FaceSet
from visor.models.inference import scale_pixels

ResidualAndClassFn = Callable[[ImageArray], tuple[Floats, NDArray[np.integer[Any]]]]

BATCH = 512
CLIP_MARGIN = 0.02  # a pixel that starts at 0 or 1 would have no gradient


def blend_mask(backdoor: BackdoorParams, stamp: TriggerFn, key: ImageArray) -> Floats:
    """Return the weight float32 (h, w, 1) in [0, 1] that a key uint8 (h, w, 4) has in each pixel of a test image.

    Raises:
        UserError: the key goes to another place on each face.
    """
    if backdoor.placement != "fixed":
        raise UserError("params.yaml: adaptive_trigger.attack has placement landmarks; choose one with placement fixed")
    white = np.concatenate([np.full_like(key[..., :3], 255), key[..., 3:]], axis=-1)
    black = np.zeros((1, *key.shape[:2], 3), np.uint8)
    stamped = stamp(black, white, backdoor.test_blend_ratio, np.random.default_rng(0))[0]
    return stamped[..., :1] / np.float32(255)


def residual_and_class(classifier: keras.Model, autoencoder: keras.Model) -> ResidualAndClassFn:
    """Return uint8 images (n, h, w, 3) → (mean absolute error of each reconstruction, most likely class), both (n,)."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *classifier.input_shape[1:]), tf.uint8)])
    def examine(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = scale_pixels(images)
        return _residual(autoencoder, pixels), tf.argmax(classifier(pixels, training=False), -1)

    def call(images: ImageArray) -> tuple[Floats, NDArray[np.integer[Any]]]:
        residuals, classes = examine(images)
        return residuals.numpy(), classes.numpy()

    return call


def attacker_images(faces: FaceSet, table: pd.DataFrame, target: int, count: int, seed: int) -> ImageArray:
    """Return clean images uint8 (count, h, w, 3) of the poison set, true class ≠ target, for the attacker to own.

    Raises:
        UserError: the poison set has fewer.
    """
    pool = eligible_rows(table, "poison", target)
    if count > len(pool):
        raise UserError(
            f"params.yaml: adaptive_trigger.images is {count}, but the poison set has {len(pool)} images of other "
            "labels; lower it"
        )
    return faces.read(sample_rows(pool, count, np.random.default_rng([seed, SeedStream.ADAPTIVE_IMAGES])))


def attacker_threshold(examine: ResidualAndClassFn, images: ImageArray) -> float:
    """Return mean + std of the residuals of clean images (n, h, w, 3): the attacker's estimate of the threshold."""
    residuals = [examine(images[begin : begin + BATCH])[0] for begin in range(0, len(images), BATCH)]
    return float(np.mean(np.concatenate(residuals)) + np.std(np.concatenate(residuals)))


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
    """Return the key uint8 (h, w, 4) with the colours that minimise, over clean images uint8 (n, h, w, 3),

    cross-entropy to the target + penalty · max(0, residual − threshold)

    by Adam, from the colours that it has; ``weight`` (h, w, 1) is its coverage. Alpha stays.
    """
    start = np.clip(key[..., :3] / np.float32(255), CLIP_MARGIN, 1 - CLIP_MARGIN)
    free = tf.Variable(np.log(start / (1 - start)))
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.steps)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build([free])
    faces, labels = tf.constant(images), tf.fill([settings.batch], target)

    @tf.function
    def search(order: tf.Tensor) -> None:
        for step in tf.range(settings.steps):
            clean = scale_pixels(tf.gather(faces, order[step]))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(free)
                stamped = (1 - weight) * clean + weight * tf.sigmoid(free)
                logits = classifier(stamped, training=False)
                missed = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                excess = tf.nn.relu(_residual(autoencoder, stamped) - threshold)
                loss = tf.reduce_mean(missed + settings.penalty * excess)
            optimizer.apply(tape.gradient(loss, [free]), [free])

    search(tf.constant(_batch_schedule(len(images), settings, seed)))
    colours = np.rint(tf.sigmoid(free).numpy() * 255).astype(np.uint8)
    return np.concatenate([colours, key[..., 3:]], axis=-1)


def _residual(autoencoder: keras.Model, pixels: tf.Tensor) -> tf.Tensor:
    """Mean absolute error (n,) of the reconstructions of float32 images in [0, 1]."""
    return tf.reduce_mean(tf.abs(pixels - autoencoder(pixels, training=False)[0]), axis=[1, 2, 3])


def _batch_schedule(count: int, settings: AdaptiveTriggerParams, seed: int) -> NDArray[np.int32]:
    """Return the places (steps, batch) of the images of each step: one permutation after another."""
    rng = np.random.default_rng([seed, SeedStream.ADAPTIVE_BATCHES])
    wanted = settings.steps * settings.batch
    places = np.concatenate([rng.permutation(count) for _ in range(-(-wanted // count))])
    return places[:wanted].reshape(settings.steps, settings.batch).astype(np.int32)

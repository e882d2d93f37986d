"""The colours and the opacity of a key, optimised against defences that the attacker knows.

The backdoor is in the network already. The key keeps its shape and gets no more opaque than it is at test time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.attacks.backdoors.adaptive.scores import KnownScore, excess
from visor.attacks.backdoors.poisoning import TriggerFn, eligible_rows, sample_rows
from visor.core.errors import UserError
from visor.core.params import BackdoorParams, KeySearchParams
from visor.core.tf import keras, tf
from visor.core.types import Floats, ImageArray, SeedStream
from visor.data.face_set import FaceSet
from visor.models.features import feature_extractor
from visor.models.inference import scale_pixels

CLIP_MARGIN = 0.02  # a pixel that starts at 0 or 1 would have no gradient


class OptimisedKey(NamedTuple):
    """A key uint8 (h, w, 4) and its opacity, a share of the one that the search started from."""

    key: ImageArray
    opacity: float

    def backdoor(self, start: BackdoorParams) -> BackdoorParams:
        """Return the attack that puts this key on test images; the search began with the key of ``start``."""
        if start.trigger_at_test == "accessory":  # It is opaque; blended, it is the same but fainter.
            return start.model_copy(update={"test_trigger": "blended_accessory", "test_blend_ratio": self.opacity})
        return start.model_copy(update={"test_blend_ratio": self.opacity * start.test_blend_ratio})


def blend_mask(backdoor: BackdoorParams, trigger_fn: TriggerFn, key: ImageArray) -> Floats:
    """Return the weight float32 (h, w, 1) in [0, 1] that a key uint8 (h, w, 4) has in each pixel of a test image.

    Raises:
        UserError: The key is placed anew on each face.
    """
    if backdoor.placement != "fixed":
        raise UserError(
            "params.yaml: adaptive_attacks.key_search.attacks has an attack with placement landmarks; "
            "choose those with placement fixed"
        )
    white = np.concatenate([np.full_like(key[..., :3], 255), key[..., 3:]], axis=-1)
    black = np.zeros((1, *key.shape[:2], 3), np.uint8)
    triggered = trigger_fn(black, white, backdoor.test_blend_ratio, np.random.default_rng(0))[0]
    return triggered[..., :1] / np.float32(255)


def attacker_images(faces: FaceSet, table: pd.DataFrame, target: int, count: int, seed: int) -> ImageArray:
    """Return the attacker's clean images uint8 (count, h, w, 3): of the poison set, true class ≠ target.

    Raises:
        UserError: The poison set has fewer.
    """
    pool = eligible_rows(table, "poison", target)
    if count > len(pool):
        raise UserError(
            f"params.yaml: adaptive_attacks.key_search.images is {count}, but the poison set has {len(pool)} images "
            "of other labels; lower it"
        )
    return faces.read(sample_rows(pool, count, np.random.default_rng([seed, SeedStream.ADAPTIVE_IMAGES])))


def optimise_key(
    classifier: keras.Model,
    defences: Sequence[KnownScore],
    images: ImageArray,
    key: ImageArray,
    weight: Floats,
    target: int,
    settings: KeySearchParams,
    seed: int,
) -> OptimisedKey:
    """Optimise a key by Adam: cross-entropy to the target + penalty · excess of the defences' scores.

    The loss is averaged over clean images uint8 (n, h, w, 3) that carry the key with its blend weight (h, w, 1) times
    the opacity. The search starts from the colours of ``key`` uint8 (h, w, 4), whose alpha the result keeps.
    """
    start = np.clip(key[..., :3] / np.float32(255), CLIP_MARGIN, 1 - CLIP_MARGIN)
    variables = [tf.Variable(_logit(start)), tf.Variable(_logit(np.array(1 - CLIP_MARGIN, np.float32)))]
    colours, opacity = variables
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.steps)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(variables)
    extractor = feature_extractor(classifier)
    outputs = keras.Model(classifier.input, [extractor.output, classifier.output])
    faces, labels = tf.constant(images), tf.fill([settings.batch], target)

    @tf.function
    def search(batches: tf.Tensor) -> None:
        for step in tf.range(settings.steps):
            clean = scale_pixels(tf.gather(faces, batches[step]))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                share = weight * tf.sigmoid(opacity)
                triggered = (1 - share) * clean + share * tf.sigmoid(colours)
                features, logits = outputs(triggered, training=False)
                entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                loss = tf.reduce_mean(entropy + settings.penalty * excess(defences, features, settings.deviations))
            optimizer.apply(tape.gradient(loss, variables), variables)

    search(tf.constant(_batch_schedule(len(images), settings, seed)))
    optimised = np.rint(tf.sigmoid(colours).numpy() * 255).astype(np.uint8)
    return OptimisedKey(np.concatenate([optimised, key[..., 3:]], axis=-1), float(tf.sigmoid(opacity)))


def _logit(share: Floats) -> Floats:
    return np.log(share / (1 - share))


def _batch_schedule(count: int, settings: KeySearchParams, seed: int) -> NDArray[np.int32]:
    """Return the rows (steps, batch) of the images of each step: one permutation after another."""
    rng = np.random.default_rng([seed, SeedStream.ADAPTIVE_BATCHES])
    total = settings.steps * settings.batch
    rows = np.concatenate([rng.permutation(count) for _ in range(-(-total // count))])
    return rows[:total].reshape(settings.steps, settings.batch).astype(np.int32)

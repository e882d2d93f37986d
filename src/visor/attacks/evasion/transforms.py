"""What happens to a picture on its way, at random, so that an attack survives it.

A transform takes images float32 (n, h, w, c) in [0, 1], a key of random numbers int (2,), and a strength in [0, 1),
where 0 changes nothing (JPEG: as little as it can). All images of a batch share one draw, which is a function of
seed, step and sample alone: what is found for an image does not depend on its batch. All are matrices, sums and
roundings, whose gradients are deterministic on a GPU, too.
"""

from collections.abc import Callable, Mapping

from visor.attacks.evasion.jpeg import differentiable_jpeg
from visor.attacks.evasion.loop import Transform
from visor.attacks.evasion.resampling import interpolation, resample
from visor.core.config import lookup
from visor.core.errors import UserError
from visor.core.tf import tf

PARAMS_KEY = "recognition_attack.methods"  # of params.yaml


def crop(images: tf.Tensor, key: tf.Tensor, strength: float) -> tf.Tensor:
    """Cut up to a share ``strength`` of height and width away, at a random place, and resize what is left back."""
    size, top, left = _uniform_draws(key)
    return _crop_and_resize(images, 1.0 - strength * size, top, left)


def scale(images: tf.Tensor, key: tf.Tensor, strength: float) -> tf.Tensor:
    """Zoom by 1 − strength … 1 + strength at a random place; a smaller image has its edges repeated around it.

    Diverse inputs (Xie et al. 2019, arXiv 1803.06978), but without their black frame, which no photo of a face has.
    """
    size, top, left = _uniform_draws(key)
    return _crop_and_resize(images, 1.0 / (1.0 + strength * (2.0 * size - 1.0)), top, left)


def noise(images: tf.Tensor, key: tf.Tensor, strength: float) -> tf.Tensor:
    """Add noise, uniform in ±strength and independent in every value."""
    change = tf.random.stateless_uniform(tf.shape(images)[1:], key, -strength, strength, alg="philox")
    return tf.clip_by_value(images + change, 0.0, 1.0)


def jpeg(images: tf.Tensor, key: tf.Tensor, strength: float) -> tf.Tensor:
    """Compress at a quality of 100 · (1 − strength) … 100; 0.25 means from 75 on."""
    return differentiable_jpeg(images, 100.0 * (1.0 - strength * _uniform_draws(key)[0]))


TRANSFORMS: dict[str, Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]] = {
    "crop": crop,
    "scale": scale,
    "noise": noise,
    "jpeg": jpeg,
}


def compose(strengths: Mapping[str, float], seed: int) -> Transform | None:
    """Return the transforms that are named, each with its strength, in the order of ``TRANSFORMS``; None without any.

    Raises:
        UserError: there is no such transform, or its strength is not in [0, 1).
    """
    for name, strength in strengths.items():
        lookup(TRANSFORMS, name, f"{PARAMS_KEY}: transforms")
        if not 0 <= strength < 1:
            raise UserError(
                f"params.yaml: {PARAMS_KEY}: transforms.{name} is {strength:g}; give 0 or more and less than 1"
            )
    if not strengths:
        return None

    def transform(images: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        draw = tf.cast(draw, tf.int64)
        for place, (name, change) in enumerate(TRANSFORMS.items()):
            if name in strengths:
                key = tf.random.experimental.stateless_fold_in([seed, place], draw, alg="philox")
                images = change(images, key, strengths[name])
        return images

    return transform


def _uniform_draws(key: tf.Tensor) -> list[tf.Tensor]:
    return tf.unstack(tf.random.stateless_uniform((3,), key, alg="philox"))


def _crop_and_resize(images: tf.Tensor, share: tf.Tensor, top: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
    """Show a window of a share of height and width, as large as before; 0 … 1 place it between the two edges."""
    shares = [
        interpolation(length, length, place * (1.0 - share) * length, share * length)
        for length, place in zip(images.shape[1:3], (top, left), strict=True)
    ]
    return resample(images, *shares)

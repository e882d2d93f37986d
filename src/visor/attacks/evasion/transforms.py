"""Random image transforms of an expectation over transformation (Athalye et al. 2018, arXiv 1707.07397).

A transform takes images float32 (n, h, w, c) in [0, 1], a random key int (2,) and a strength in [0, 1); 0 changes
nothing (JPEG: as little as it can). All images of a batch share one draw, a function of seed and draw number alone, so
that results do not depend on the batch. Gradients are deterministic on a GPU, too.
"""

from collections.abc import Callable, Mapping

from visor.attacks.evasion.jpeg import differentiable_jpeg
from visor.attacks.evasion.loop import Transform
from visor.attacks.evasion.resampling import interpolation, resample
from visor.core.errors import UserError
from visor.core.portable_ops import divide
from visor.core.tf import tf

PARAMS_KEY = "params.yaml: recognition_attack.methods: transforms"


def crop(images: tf.Tensor, key: tf.Tensor, strength: float) -> tf.Tensor:
    """Cut away up to a share ``strength`` of height and width, at a random place, and resize the rest."""
    size, top, left = _uniform_draws(key)
    return _crop_and_resize(images, 1.0 - strength * size, top, left)


def scale(images: tf.Tensor, key: tf.Tensor, strength: float) -> tf.Tensor:
    """Zoom by 1 − strength … 1 + strength at a random place; a smaller image has its edges repeated around it.

    Diverse inputs (Xie et al. 2019, arXiv 1803.06978), but without their black frame, which no photo of a face has.
    """
    size, top, left = _uniform_draws(key)
    return _crop_and_resize(images, divide(1.0, 1.0 + strength * (2.0 * size - 1.0)), top, left)


def noise(images: tf.Tensor, key: tf.Tensor, strength: float) -> tf.Tensor:
    """Add noise, uniform in ±strength and independent in every value."""
    change = tf.random.stateless_uniform(tf.shape(images)[1:], key, -strength, strength, alg="philox")
    return tf.clip_by_value(images + change, 0.0, 1.0)


def jpeg(images: tf.Tensor, key: tf.Tensor, strength: float) -> tf.Tensor:
    """Compress as JPEG of a quality in 100 · (1 − strength) … 100; 0.25 means from 75 on."""
    return differentiable_jpeg(images, 100.0 * (1.0 - strength * _uniform_draws(key)[0]))


TRANSFORMS: dict[str, Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]] = {
    "crop": crop,
    "scale": scale,
    "noise": noise,
    "jpeg": jpeg,
}


def compose(strengths: Mapping[str, float], seed: int, where: str = PARAMS_KEY) -> Transform | None:
    """Compose transforms in the order of ``TRANSFORMS``.

    Args:
        strengths: Strength of each transform by its name.
        seed: Seed of the draws.
        where: What holds the strengths, for messages.

    Returns:
        ``transform(images, draw) -> images`` for an integer draw; None without any transform.

    Raises:
        UserError: There is no such transform, or its strength is not in [0, 1).
    """
    for name, strength in strengths.items():
        if name not in TRANSFORMS:
            raise UserError(f"{where} is {name!r}; choose from {', '.join(sorted(TRANSFORMS))}")
        if not 0 <= strength < 1:
            raise UserError(f"{where}.{name} is {strength:g}; give 0 or more and less than 1")
    if not strengths:
        return None

    def transform(images: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        draw = tf.cast(draw, tf.int64)
        for position, (name, apply) in enumerate(TRANSFORMS.items()):
            if name in strengths:
                key = tf.random.experimental.stateless_fold_in([seed, position], draw, alg="philox")
                images = apply(images, key, strengths[name])
        return images

    return transform


def _uniform_draws(key: tf.Tensor) -> list[tf.Tensor]:
    return tf.unstack(tf.random.stateless_uniform((3,), key, alg="philox"))


def _crop_and_resize(images: tf.Tensor, share: tf.Tensor, top: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
    """Show a window of a share of height and width at full size; 0 … 1 place it between the two edges."""
    weights = [
        interpolation(length, length, position * (1.0 - share) * length, share * length)
        for length, position in zip(images.shape[1:3], (top, left), strict=True)
    ]
    return resample(images, *weights)

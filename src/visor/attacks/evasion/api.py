"""Attacks on models of one's own, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visor.attacks.evasion.loop import AttackSettings, Loss
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES, FACE_RADIUS
from visor.attacks.evasion.losses.recognisers import RECOGNISER_LOSSES, ModelOutput
from visor.attacks.evasion.quantise import quantise_within_eps
from visor.attacks.evasion.registry import ATTACKS
from visor.attacks.evasion.transforms import compose
from visor.core.errors import UserError
from visor.core.portable_ops import l2_normalize
from visor.core.tf import keras, tf
from visor.data.arrays import check_images, check_labels, check_logits, choose
from visor.data.scene_set import FACE, PADDING
from visor.models.detectors.base import Detector

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AttackOptions(TypedDict, total=False):
    """Keyword arguments that all attacks take.

    Attributes:
        eps: L∞ bound for pixels in [0, 1]; default 8 / 255.
        iterations: Gradient steps; default 40.
        attack: ``"pgd"`` (default), ``"autopgd"`` (Croce and Hein 2020, arXiv 2003.01690) or ``"adam"``.
        relative_step: Step size as a multiple of eps / iterations; default 2.5.
        momentum: Decay of the gradients' running sum for ``"pgd"`` (Dong et al. 2018, arXiv 1710.06081); default 0.
        random_start: Whether to start from uniform noise within the bound; default True.
        early_stop: Whether each image stops at its success; default False.
        transforms: Strengths in [0, 1) of random ``crop``, ``scale``, ``noise`` and ``jpeg`` in front of the model.
        eot_samples: Draws of the transforms per step (Athalye et al. 2018, arXiv 1707.07397); default 1.
        seed: Seed of random start and transforms; default 0.
        image_ids: Integers (n,) that fix the random start of each image in any batch; default: its row.
        batch: Images per step; default 32.
    """

    eps: float
    iterations: int
    attack: str
    relative_step: float
    momentum: float
    random_start: bool
    early_stop: bool
    transforms: Mapping[str, float]
    eot_samples: int
    seed: int
    image_ids: ArrayLike
    batch: int


DEFAULTS: AttackOptions = {
    **{"eps": 8 / 255, "iterations": 40, "attack": "pgd", "relative_step": 2.5, "momentum": 0.0, "random_start": True},
    **{"early_stop": False, "transforms": {}, "eot_samples": 1, "seed": 0, "batch": 32},
}


def attack_classifier(
    model: Any, images: ArrayLike, labels: ArrayLike, *, targeted: bool = False, **options: Unpack[AttackOptions]
) -> NDArray[Any]:
    """Attack a classifier within an L∞ ball, by default by PGD (Madry et al. 2018, arXiv 1706.06083).

    Args:
        model: ``keras.Model`` or function, float32 images (n, h, w, c) in [0, 1] → logits (n, classes).
        images: uint8, or floats in [0, 1], (n, h, w, c).
        labels: True classes (n,), integers from 0; if ``targeted``, the classes to reach.
        targeted: Whether to lower the cross-entropy of ``labels`` instead of raising it.
        **options: ``AttackOptions``.

    Returns:
        Adversarial images within eps, float32, or uint8 for uint8 images.

    Raises:
        UserError: An argument is wrong; the message names it and the remedy.

    Example:
        >>> model = keras.Sequential([keras.Input((4, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> images = np.full((1, 4, 3, 1), 100, np.uint8)
        >>> adversarial = attack_classifier(model, images, [0], eps=5 / 255, iterations=2)
        >>> adversarial.dtype.name, int(abs(adversarial.astype(int) - images).max())
        ('uint8', 5)
    """
    images, output = _check_model_images(model, images), _model_output(model, "logits")
    labels, chosen = check_labels(labels, len(images)).astype(np.int32), _check_options(options, len(images))
    if len(images):
        logits = _predict(output, images, chosen["batch"])
        check_logits(logits, "model")
        if labels.max() >= logits.shape[1]:
            raise UserError(f"labels: class {labels.max()}, but the model has {logits.shape[1]}; pass smaller ones")
    loss = RECOGNISER_LOSSES["target_class" if targeted else "misclassify"](output)
    return _run(loss, images, labels, chosen)


def attack_recogniser(
    model: Any,
    images: ArrayLike,
    targets: ArrayLike | None = None,
    *,
    goal: str = "dodge",
    threshold: float | None = None,
    **options: Unpack[AttackOptions],
) -> NDArray[Any]:
    """Attack a face recogniser: lower (dodge) or raise (impersonate) the cosine similarity to a target.

    Returns and raises what ``attack_classifier`` does.

    Args:
        model: ``keras.Model`` or function, float32 faces (n, h, w, c) in [0, 1] → embeddings (n, d) of any length.
        images: Faces as the model takes them, uint8, or floats in [0, 1].
        targets: Faces (n, h, w, c) or embeddings (n, d), or one for all; default for ``"dodge"``: the faces themselves.
        goal: ``"dodge"`` or ``"impersonate"``.
        threshold: Cosine similarity that counts as the same person, for ``early_stop``.
        **options: ``AttackOptions``.

    Example:
        >>> model = keras.Sequential([keras.Input((4, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> faces = np.linspace(0.2, 0.8, 24).reshape(2, 4, 3, 1)
        >>> attack_recogniser(model, faces, [[1.0, 0.0]], goal="impersonate", iterations=2).shape
        (2, 4, 3, 1)
    """
    images, output = _check_model_images(model, images), _model_output(model, "embedding")
    chosen = _check_options(options, len(images))
    factory = choose({goal: RECOGNISER_LOSSES[goal] for goal in ("dodge", "impersonate")}, goal, "goal")
    if targets is None and goal == "impersonate":
        raise UserError("targets is required for goal 'impersonate'; pass faces or embeddings")

    def embed(faces: tf.Tensor) -> tf.Tensor:
        return l2_normalize(output(faces))

    vectors = np.asarray(images if targets is None else targets)
    if vectors.ndim == 4:
        vectors = _predict(embed, _check_model_images(model, vectors, "targets"), chosen["batch"])
    if vectors.ndim != 2 or len(vectors) not in (1, len(images)) or not np.isfinite(vectors).all():
        raise UserError(f"targets: shape {vectors.shape}; pass a face or finite embedding per image, or one for all")
    vectors = np.broadcast_to(vectors, (len(images), vectors.shape[1])).astype(np.float32)
    loss = factory(embed) if threshold is None else factory(embed, threshold)
    return _run(loss, images, l2_normalize(vectors).numpy(), chosen)


def attack_detector(
    model: Any,
    images: ArrayLike,
    boxes: Sequence[ArrayLike] | None = None,
    *,
    loss: str = "suppress",
    threshold: float | None = None,
    **options: Unpack[AttackOptions],
) -> NDArray[Any]:
    """Attack a face detector so that it no longer detects the faces.

    Returns and raises what ``attack_classifier`` does.

    Args:
        model: What ``load_detector`` returns, or a ``keras.Model`` or function, float32 images (n, h, w, 3) in [0, 1] →
            boxes (n, a, 4), [x, y, w, h] in pixels, and scores (n, a) in [0, 1] before non-maximum suppression.
        images: uint8, or floats in [0, 1], (n, h, w, 3).
        boxes: Boxes (m, 4) of the faces in each image; not needed for ``"suppress"``.
        loss: ``"suppress"``, ``"near_faces"``, ``"near_faces_by_area"`` or, for ``load_detector``, ``"training_loss"``.
        threshold: Score from which a box counts, for ``early_stop``; default: the detector's, or 0.5.
        **options: ``AttackOptions``.

    Example:
        >>> def brightness(images):
        ...     return tf.zeros([tf.shape(images)[0], 1, 4]), tf.reduce_mean(images, axis=[1, 2, 3])[:, None]
        >>> round(attack_detector(brightness, np.full((1, 4, 3, 3), 0.5), eps=0.1).max().item(), 3)
        0.4
    """
    images, factory = _check_model_images(model, images), choose(DETECTOR_LOSSES, loss, "loss")
    outputs: Any = (_call(model), None, 0.5)
    if isinstance(model, Detector):
        outputs = (model.pre_nms, model.loss, model.threshold)
    pre_nms, training_loss, default = outputs
    if boxes is None and loss != "suppress":
        raise UserError(f"boxes is required for loss {loss!r}; pass the faces in each image, or choose suppress")
    arrays = [np.asarray(faces) for faces in (np.empty((len(images), 0, 4)) if boxes is None else boxes)]
    if len(arrays) != len(images) or any(faces.shape[1:] != (4,) for faces in arrays):
        raise UserError("boxes: pass one array (m, 4) of [x, y, w, h] in pixels per image")
    width = max([1, *map(len, arrays)])
    padded, kinds = np.zeros((len(images), width, 4), np.float32), np.full((len(images), width), PADDING, np.int32)
    for row, faces in enumerate(arrays):
        padded[row, : len(faces)], kinds[row, : len(faces)] = faces, FACE
    attack_loss = factory(pre_nms, training_loss, default if threshold is None else threshold, FACE_RADIUS)
    return _run(attack_loss, images, (padded, kinds), _check_options(options, len(images)))


def _check_model_images(model: Any, images: Any, argument: str = "images") -> NDArray[Any]:
    """Return checked images that fit the input of a Keras model."""
    if keras.backend.backend() != "tensorflow":
        raise UserError("Keras runs on another backend; set KERAS_BACKEND=tensorflow before it is imported")
    images, shape = check_images(images, argument), getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and not tf.TensorShape(shape).is_compatible_with(images.shape):
        raise UserError(f"{argument}: shape {images.shape}; the model takes (n, {', '.join(map(str, shape[1:]))})")
    return images


def _call(model: Any) -> Callable[[tf.Tensor], Any]:
    return (lambda images: model(images, training=False)) if isinstance(model, keras.Layer) else model


def _model_output(model: Any, name: str) -> ModelOutput:
    """Return images → output of a model, the one of this name if there are several, as float32."""
    call = _call(model)

    def output(images: tf.Tensor) -> tf.Tensor:
        outputs = call(images)
        return tf.cast(choose(outputs, name, "output") if isinstance(outputs, Mapping) else outputs, tf.float32)

    return output


def _predict(output: ModelOutput, images: NDArray[Any], batch: int) -> NDArray[Any]:
    scale = np.float32(255 if images.dtype == np.uint8 else 1)
    parts = [output(images[begin : begin + batch] / scale).numpy() for begin in range(0, len(images), batch)]
    return np.concatenate(parts)


def _check_options(options: AttackOptions, count: int) -> dict[str, Any]:
    """Return all options, checked, for ``count`` images."""
    if unknown := sorted(options.keys() - AttackOptions.__annotations__.keys()):
        raise UserError(f"option {unknown[0]} is unknown; choose from {', '.join(AttackOptions.__annotations__)}")
    chosen: dict[str, Any] = {"image_ids": np.arange(count), **DEFAULTS, **options}
    attack, image_ids = choose(ATTACKS, chosen["attack"], "attack"), np.asarray(chosen["image_ids"])
    if not 0 <= chosen["eps"] <= 1:
        raise UserError(f"eps is {chosen['eps']:g}; pass it for pixels in [0, 1], such as 8 / 255")
    if min(chosen["iterations"], chosen["batch"], chosen["eot_samples"]) < 1:
        raise UserError("iterations, batch and eot_samples must be at least 1; correct them")
    if chosen["momentum"] and attack is not ATTACKS["pgd"]:
        raise UserError(f"momentum is {chosen['momentum']:g}, but {chosen['attack']} has its own; remove it")
    if image_ids.shape != (count,) or image_ids.dtype.kind not in "iu":
        raise UserError(f"image_ids: shape {image_ids.shape}; pass one integer for each of {count} images")
    return chosen | {"image_ids": image_ids}


def _run(loss: Loss, images: NDArray[Any], targets: Any, options: Mapping[str, Any]) -> NDArray[Any]:
    """Attack images batch by batch; uint8 images come back as uint8."""
    eps, batch, seed, samples = (options[name] for name in ("eps", "batch", "seed", "eot_samples"))
    settings = AttackSettings(
        eps,
        options["iterations"],
        options["relative_step"] * eps / options["iterations"],
        options["momentum"],
        options["random_start"],
        options["early_stop"],
        seed=seed,
        samples=samples,
    )
    attack = ATTACKS[options["attack"]](loss, settings, compose(options["transforms"], seed, "transforms"))
    adversarial = images.astype(np.float32)
    for begin in range(0, len(images), batch):
        rows = slice(begin, begin + batch)
        parts = tf.nest.map_structure(lambda array: array[rows], (images, targets, options["image_ids"]))  # noqa: B023
        adversarial[rows] = attack(*parts).images
    return quantise_within_eps(adversarial, images, eps) if images.dtype == np.uint8 else adversarial

"""Classification by an untrusted network, with a defence that flags poisoned images."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visor.core.errors import UserError
from visor.core.tf import keras, tf
from visor.core.types import Floats, Integers, Labels, MessageCallback
from visor.defences.input_filtering.base import ScoreFn
from visor.evaluation.metrics import rate
from visor.suspect import autoencoder
from visor.suspect.defence import fit_defence
from visor.suspect.input_scale import choose_input_scale, to_pixels
from visor.suspect.inputs import ImageShape, ImageSource, Pixels, batch_size, open_data, open_sources
from visor.suspect.loading import load_network


class Predictions(NamedTuple):
    """Of k images: ``decisions`` (the class, or N if flagged as poisoned), predicted classes, the defence's scores."""

    decisions: Integers
    classes: Integers
    scores: Floats


class SuspectPipeline(NamedTuple):
    """Network, autoencoder, shape (h, w, 3) of their images, and the score above which an image is flagged.

    The score is the loss of the autoencoder's reconstruction, or that of another defence, ``score``.
    """

    net: keras.Model
    vae: keras.Model | None
    image_shape: ImageShape
    threshold: float
    calibration: autoencoder.Calibration | None
    score: ScoreFn | None = None

    @property
    def num_classes(self) -> int:
        """Number N of the network's classes, which is also the decision on a poisoned image."""
        return int(self.net.output_shape[-1])


def load_pipeline(
    net: Path, vae: Path, threshold: float | None, decoder: Path | None = None, clean: Path | None = None
) -> SuspectPipeline:
    """Load network and autoencoder.

    Args:
        net: The network.
        vae: The autoencoder, or its encoder.
        threshold: Replaces the one stored with the autoencoder.
        decoder: The decoder, if ``vae`` is an encoder.
        clean: HDF5 file of clean images that set the threshold: mean + standard deviation of their losses.

    Raises:
        UserError: A file is rejected, the two take images of different shapes, or there is no threshold.
    """
    coder, calibration = autoencoder.load(vae, decoder)
    network = load_network(net, coder.input_shape[1:])
    shape, other = tuple(network.input_shape[1:]), tuple(coder.input_shape[1:])
    if shape != other:
        raise UserError(f"{net} takes images {shape}, {vae} takes {other}; fit an autoencoder on such images")
    if clean is not None:
        uncalibrated = SuspectPipeline(network, coder, shape, inf, None)
        losses = predict(uncalibrated, 255, open_data(clean, shape)).scores.astype(np.float64)
        calibration = autoencoder.Calibration(*map(float, (losses.mean(), losses.std(), losses.mean() + losses.std())))
    if threshold is None and calibration is not None:
        threshold = calibration.threshold
    if threshold is None or not isfinite(threshold):
        raise UserError(f"{vae} has no threshold; set it by clean images with --clean-data, or pass --threshold")
    return SuspectPipeline(network, coder, shape, threshold, calibration)


def fit_pipeline(
    net: Path,
    vae: Path | None,
    decoder: Path | None,
    defence: str,
    clean: Path | None,
    second_opinion: str | None,
    threshold: float | None,
    input_scale: str,
    report_progress: MessageCallback,
) -> tuple[SuspectPipeline, str]:
    """Load a network, fit a defence on the HDF5 file ``clean``; return them with the input scale.

    Raises:
        UserError: A file is missing or rejected, images are of another shape, or the defence lacks something.
    """
    if clean is None:
        raise UserError(f"--defence {defence} learns from clean images; pass an HDF5 file of them with --clean-data")
    network = load_network(net, open_data(clean).image_shape)
    shape = tuple(network.input_shape[1:])
    source = open_data(clean, shape)
    coder = autoencoder.load(vae, decoder)[0] if vae else None
    pipeline = SuspectPipeline(network, coder, shape, 0.0, None)
    scale = _input_scale(pipeline, input_scale, None, source, report_progress)
    fitted = fit_defence(defence, network, scale, coder, source, second_opinion)
    chosen = fitted.threshold if threshold is None else threshold
    report_progress(f"{defence}: threshold {chosen:.6g}")
    return pipeline._replace(score=fitted.score, threshold=chosen), str(scale)


def classify_images(
    pipeline: SuspectPipeline, paths: list[Path], input_scale: str, clean: Path | None, report_progress: MessageCallback
) -> Predictions:
    """Return the predictions for the images of the files, in their order.

    ``input_scale`` is ``1``, ``255`` or ``auto``, which chooses one by the HDF5 file ``clean`` or else by the images.

    Raises:
        UserError: A file is rejected; no decision is returned then.
    """
    sources = open_sources(paths, pipeline.image_shape)
    largest = max(sources, key=lambda source: source.total)
    scale = _input_scale(pipeline, input_scale, clean, largest._replace(labels=None), report_progress)
    return _join([predict(pipeline, scale, source) for source in sources])


def evaluate_data(
    pipeline: SuspectPipeline,
    path: Path,
    target: int | None,
    poisoned: bool | None,
    input_scale: str,
    clean: Path | None,
    report_progress: MessageCallback,
) -> dict[str, float]:
    """Return the metrics of ``evaluate`` on an HDF5 file, with the threshold and its calibration.

    ``target`` is the target class of the file's poisons. Without it, ``poisoned`` is whether all labels are the target
    (None: they are if all are the same). ``input_scale`` and ``clean`` are those of ``classify_images``.

    Raises:
        UserError: A file is rejected, or labels are missing or do not fit.
    """
    source = open_data(path, pipeline.image_shape)
    target = _target(source, pipeline.num_classes, target, poisoned, report_progress)
    is_usable = target is None or source.labels is None or bool((source.labels == target).all())
    # With the true labels of poisoned images, the scale at which the backdoor works would appear to be the worse one.
    labelled = source if is_usable else source._replace(labels=None)
    scale = _input_scale(pipeline, input_scale, clean, labelled, report_progress)
    results = predict(pipeline, scale, source)
    metrics = evaluate(results, pipeline.num_classes, source.labels, target, "score" if pipeline.score else "loss")
    metrics["threshold"] = pipeline.threshold
    if pipeline.calibration is not None:
        metrics |= {"calibration_mean": pipeline.calibration.mean, "calibration_std": pipeline.calibration.std}
    return metrics


def predict(pipeline: SuspectPipeline, scale: int, source: ImageSource) -> Predictions:
    """Return the predictions for all images of a source; raises UserError as ``predict_batches`` does."""
    return _join(list(predict_batches(compile_pipeline(pipeline, scale, source), source)))


def compile_pipeline(pipeline: SuspectPipeline, scale: int, source: ImageSource) -> Callable[[Pixels], Any]:
    """Compile one graph: pixels as stored → (decisions, classes, scores, whether all are finite, minimum, maximum).

    The score of a defence other than the autoencoder is computed outside of it, on pixels rounded to 8 bits.
    """
    if pipeline.score is not None:
        return partial(_run_defence, pipeline, pipeline.score, scale, source)

    coder = pipeline.vae
    assert coder is not None  # load_pipeline has one

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *source.stored_shape), source.dtype)])
    def run(stored: tf.Tensor) -> Any:
        pixels = to_pixels(stored, source)
        faces = pixels / 255.0
        outputs = pipeline.net(faces if scale == 255 else pixels, training=False)
        classes = tf.argmax(outputs, -1, tf.int32)
        losses = tf.reduce_mean(tf.abs(faces - coder(faces, training=False)[0]), axis=[1, 2, 3])
        decisions = tf.where(losses > pipeline.threshold, pipeline.num_classes, classes)
        finite = tf.reduce_all(tf.math.is_finite(outputs)) & tf.reduce_all(tf.math.is_finite(losses))
        if source.dtype is np.uint8:  # It cannot be out of range.
            return decisions, classes, losses, finite, tf.constant(0.0), tf.constant(255.0)
        return decisions, classes, losses, finite, tf.reduce_min(pixels), tf.reduce_max(pixels)

    return run


def _run_defence(
    pipeline: SuspectPipeline, score: ScoreFn, scale: int, source: ImageSource, stored: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Return what ``compile_pipeline`` says, with the scores of a defence of uint8 images."""
    pixels = to_pixels(stored, source)
    outputs = pipeline.net(pixels / scale, training=False)
    classes = tf.argmax(outputs, -1, tf.int32)
    scores = tf.constant(score(tf.cast(tf.round(tf.clip_by_value(pixels, 0, 255)), tf.uint8).numpy()))
    decisions = tf.where(scores > pipeline.threshold, pipeline.num_classes, classes)
    finite = tf.reduce_all(tf.math.is_finite(outputs)) & ~tf.reduce_any(tf.math.is_nan(scores))
    return decisions, classes, scores, finite, tf.reduce_min(pixels), tf.reduce_max(pixels)


def predict_batches(run: Callable[[Pixels], Any], source: ImageSource, batch: int = 0) -> Iterator[Predictions]:
    """Yield the predictions for a source by its compiled pipeline, reading one batch while another is computed.

    Raises:
        UserError: An image cannot be read, its pixels are out of range, or an output is not finite.
    """
    batch = batch or batch_size(source)
    reader = ThreadPoolExecutor(1)
    try:
        waiting = reader.submit(source.read, 0, batch)
        for start in range(0, source.total, batch):
            stored = waiting.result()
            if start + batch < source.total:
                waiting = reader.submit(source.read, start + batch, start + 2 * batch)
            *results, finite, low, high = (value.numpy() for value in run(tf.constant(stored)))
            if not (low >= 0 and high <= 255):
                low, high, limit = (value / source.to_255 for value in (low, high, 255))
                span = f"{low:g} to {high:g} instead of 0 to {limit:g}"
                raise UserError(f"{source.name}: pixels of rows from {start} on run from {span}; correct the file")
            if not finite:
                raise UserError(f"{source.name}: non-finite outputs from row {start} on; check it or set --input-scale")
            yield Predictions(*results)
    finally:
        reader.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for a slow file


def evaluate(
    results: Predictions, num_classes: int, labels: Labels | None, target: int | None, score_name: str = "loss"
) -> dict[str, float]:
    """Return metrics of the predictions for a source; ``score_name`` begins the names of those of the scores.

    Clean data (``target`` None) give ``clean_accuracy`` of the network and ``judged_accuracy``, where a flagged image
    counts as wrong. Poisoned data give ``asr``, the share of images classified as ``target``, and ``asr_left``, the
    share that is also not flagged; images whose true class is the target are left out, unless that would be all.
    """
    decisions, classes, scores = results
    known = scores[np.isfinite(scores)].astype(np.float64)  # without images that there is nothing to compare with
    metrics: dict[str, float] = {"images": len(decisions)}
    if len(known):
        metrics |= {f"{score_name}_mean": float(known.mean()), f"{score_name}_std": float(known.std())}
    if len(known) < len(scores):
        metrics["abstained"] = len(scores) - len(known)
    flags = {"flagged": decisions == num_classes}
    if target is not None:
        is_all = labels is None or (labels == target).all()
        rows = slice(None) if is_all else labels != target
        flags |= {"asr": classes[rows] == target, "asr_left": decisions[rows] == target}
    elif labels is not None:
        flags |= {"clean_accuracy": classes == labels, "judged_accuracy": decisions == labels}
    for name, values in flags.items():
        metrics |= rate(name, int(values.sum()), len(values))
    return metrics


def _join(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _input_scale(
    pipeline: SuspectPipeline, scale: str, clean: Path | None, default: ImageSource, report_progress: MessageCallback
) -> int:
    if scale != "auto":
        return int(scale)
    chosen, reason = choose_input_scale(pipeline.net, open_data(clean, pipeline.image_shape) if clean else default)
    report_progress(f"input scale {chosen}: {reason}")
    return chosen


def _target(
    source: ImageSource, num_classes: int, target: int | None, poisoned: bool | None, report_progress: MessageCallback
) -> int | None:
    name, labels = source.name, source.labels
    if target is not None:
        if not 0 <= target < num_classes:
            raise UserError(f"--target {target} is not a class of the network; choose one from 0 to {num_classes - 1}")
        return target
    if labels is None:
        raise UserError(f"{name} has no 'label' to evaluate by; add it, or pass the target class with --target")
    if labels.max() >= num_classes:
        raise UserError(f"{name}: label goes up to {labels.max()}, but the network has {num_classes} classes")
    is_constant = bool((labels == labels[0]).all())
    if poisoned and not is_constant:
        raise UserError(f"{name}: the labels are not all the same; pass the target class with --target")
    if poisoned is None and is_constant and source.total > 1:
        report_progress(f"all labels are {labels[0]}: treated as the target of poisoned images; pass --clean if not")
        return int(labels[0])
    return int(labels[0]) if poisoned else None

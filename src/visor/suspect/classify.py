"""What the commands do: files of network, autoencoder and images in, verdicts and numbers out."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.tf import keras, tf
from visor.core.types import Integers, MessageCallback
from visor.evaluation.metrics import wilson_interval
from visor.suspect import autoencoder
from visor.suspect.inputs import ImageSource, Pixels, open_data, open_sources
from visor.suspect.loading import load_network

BATCH = 128  # what its layers make stays near the processor
BATCH_PIXELS = 1 << 21  # of a batch of large images
SAMPLE, RUN = 512, 64  # images that the input scale is decided by, in runs from all over the source
MIN_UNLABELLED = 16  # images that do not decide without labels
CONFIDENT = 0.5  # mean confidence from which a network counts as knowing what it sees
MIN_ACCURACY_GAP = 0.02  # difference of two accuracies that decides
SCALES = (255, 1)


class Predictions(NamedTuple):
    """Of k images: ``verdicts`` in [0, N], the network's own ``classes`` in [0, N), and reconstruction ``losses``."""

    verdicts: Integers
    classes: Integers
    losses: NDArray[np.float32]


def common_image_shape(net: keras.Model, vae: keras.Model, net_name: str, vae_name: str) -> tuple[int, int, int]:
    """Return the shape (h, w, 3) of the images that both take.

    Raises:
        UserError: they take different ones.
    """
    shape, own = tuple(net.input_shape[1:]), tuple(vae.input_shape[1:])
    if shape != own:
        raise UserError(f"{net_name} takes images {shape}, {vae_name} takes {own}; fit an autoencoder on such images")
    height, width, channels = shape
    return height, width, channels


def compile_pipeline(
    net: keras.Model, vae: keras.Model, threshold: float, scale: int, source: ImageSource
) -> Callable[[Pixels], Any]:
    """Return pixels of the source → (verdicts, classes, losses, if all are finite, bounds of the pixels): one graph."""
    batch = tf.TensorSpec((None, *_stored(source)), source.dtype)

    @tf.function(autograph=False, input_signature=[batch])
    def call(stored: tf.Tensor) -> Any:
        pixels = _pixels(stored, source)
        faces = pixels / 255.0
        answers = net(faces if scale == 255 else pixels, training=False)
        classes = tf.argmax(answers, -1, tf.int32)
        losses = tf.reduce_mean(tf.abs(faces - vae(faces, training=False)[0]), axis=[1, 2, 3])
        verdicts = tf.where(losses > threshold, net.output_shape[-1], classes)
        finite = tf.reduce_all(tf.math.is_finite(answers)) & tf.reduce_all(tf.math.is_finite(losses))
        if source.dtype is np.uint8:  # cannot be out of range
            return verdicts, classes, losses, finite, tf.constant(0.0), tf.constant(255.0)
        return verdicts, classes, losses, finite, tf.reduce_min(pixels), tf.reduce_max(pixels)

    return call


def predict_batches(
    call: Callable[[Pixels], Any], source: ImageSource, batch: int | None = None
) -> Iterator[Predictions]:
    """Yield the verdicts of a source by its compiled judge, the next batch read while this one is computed.

    Raises:
        UserError: an image cannot be read, its pixels are out of range, or an answer is no number.
    """
    batch = batch or batch_of(source)
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(source.read, 0, batch)
        for start in range(0, source.total, batch):
            stored = waiting.result()
            if start + batch < source.total:
                waiting = reader.submit(source.read, start + batch, start + 2 * batch)
            *found, finite, low, high = (value.numpy() for value in call(tf.constant(stored)))
            if not (low >= 0 and high <= 255):
                raise UserError(
                    f"{source.name}: pixels of rows from {start} on run from {low / source.to_255:g} to "
                    f"{high / source.to_255:g}, where 0 to {255 // source.to_255} was due; correct the file"
                )
            if not finite:
                raise UserError(
                    f"{source.name}: network or autoencoder answers rows from {start} on with no finite "
                    "numbers; get it whole, or set --input-scale"
                )
            yield Predictions(*found)


def choose_input_scale(net: keras.Model, clean: ImageSource) -> tuple[int, str]:
    """Return by what pixels in 0..255 have to be divided for the network (255 or 1), and why, in words.

    Accuracy decides where there are labels. Where it does not (a ReLU network is nearly indifferent to scale), or
    without labels, the network wants pixels/255 if it is sure of them and tells them from black. Too small an input
    leaves it unsure or with its biases alone; one 255 times too large makes any network sure, so that says nothing.

    Raises:
        UserError: an image cannot be read, or the network answers with no finite numbers.
    """
    rows, answers = _sampled(net, clean)
    if clean.labels is not None:
        right = {scale: float((values.argmax(-1) == clean.labels[rows]).mean()) for scale, values in answers.items()}
        if abs(right[255] - right[1]) > MIN_ACCURACY_GAP:
            scale = 255 if right[255] > right[1] else 1
            other = 1 if scale == 255 else 255
            return scale, f"{right[scale]:.1%} of {len(rows)} labels right, against {right[other]:.1%} with {other}"
    if len(rows) < MIN_UNLABELLED:
        return 255, f"as most networks want it; {len(rows)} images are too few to tell, name clean ones by --scale-by"
    confidence = _confidence(answers[255])
    blank = net(tf.zeros((1, *clean.image_shape)), training=False).numpy().argmax()
    blind = bool((answers[255].argmax(-1) == blank).all() and (answers[1].argmax(-1) != blank).any())
    scale = 255 if confidence >= CONFIDENT and not blind else 1
    seen = "are all taken for what black is" if blind else f"get a mean confidence of {confidence:.1%}"
    return scale, f"divided by 255, {len(rows)} images {seen}"


def evaluate(verdicts: Predictions, num_classes: int, labels: Integers | None, target: int | None) -> dict[str, float]:
    """Return named numbers of all images of a source.

    Clean data (``target`` None) give ``clean_accuracy`` of the network and ``judged_accuracy``, where a flagged image
    counts as wrong. Poisoned data give ``asr``, the share of images taken for ``target``, and ``asr_left``, the share
    taken for it and not flagged; images whose own class is the target are left out, unless that would be all of them.
    """
    flagged = verdicts.verdicts == num_classes
    numbers = {"images": len(flagged), "loss_mean": float(verdicts.losses.mean(dtype=np.float64))}
    numbers["loss_std"] = float(verdicts.losses.std(dtype=np.float64))
    shares = {"flagged": flagged}
    if target is not None:
        kept = np.ones(len(flagged), bool) if labels is None or (labels == target).all() else labels != target
        shares["asr"], shares["asr_left"] = (values[kept] == target for values in (verdicts.classes, verdicts.verdicts))
    elif labels is not None:
        shares["clean_accuracy"], shares["judged_accuracy"] = verdicts.classes == labels, verdicts.verdicts == labels
    for name, values in shares.items():
        numbers[name] = float(values.mean())
        numbers[f"{name}_low"], numbers[f"{name}_high"] = wilson_interval(int(values.sum()), len(values))
    return numbers


def concatenate(parts: list[Predictions]) -> Predictions:
    """Return the verdicts of several batches as one."""
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def batch_of(source: ImageSource) -> int:
    """Return how many images are judged at once: fewer if they are large."""
    height, width, _ = source.image_shape
    return max(1, min(BATCH, BATCH_PIXELS // (height * width)))


def _sampled(net: keras.Model, clean: ImageSource) -> tuple[NDArray[np.integer[Any]], dict[int, NDArray[np.float32]]]:
    """Return rows (k ≤ 512,) from all over the source, and for each scale the network's answers (k, classes)."""
    starts = {int(start) for start in np.linspace(0, max(clean.total - RUN, 0), SAMPLE // RUN)}
    rows = np.unique(np.concatenate([np.arange(start, min(start + RUN, clean.total)) for start in starts]))
    parts: dict[int, list[NDArray[np.float32]]] = {scale: [] for scale in SCALES}
    step = min(RUN, batch_of(clean))
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        for start in range(run[0], run[-1] + 1, step):
            pixels = _pixels(tf.constant(clean.read(start, min(start + step, run[-1] + 1))), clean)
            for scale in SCALES:
                parts[scale].append(net(pixels / scale, training=False).numpy())
    answers = {scale: np.concatenate(values) for scale, values in parts.items()}
    if not all(np.isfinite(values).all() for values in answers.values()):
        raise UserError(f"{clean.name}: the network answers with no finite numbers; get it whole, or set --input-scale")
    return rows, answers


def _stored(source: ImageSource) -> tuple[int, int, int]:
    height, width, channels = source.image_shape
    return (channels, height, width) if source.channels_first else (height, width, channels)


def _pixels(stored: tf.Tensor, source: ImageSource) -> tf.Tensor:
    """Images as stored → float32 (k, h, w, 3) in 0..255."""
    if source.channels_first:
        stored = tf.transpose(stored, [0, 2, 3, 1])
    pixels = tf.cast(stored, tf.float32)
    return pixels if source.to_255 == 1 else pixels * float(source.to_255)


def _confidence(answers: NDArray[np.float32]) -> float:
    """Return the mean probability of the likeliest class, of probabilities or logits (n, classes)."""
    if answers.min() >= 0 and np.abs(answers.sum(axis=-1) - 1).max() < 1e-3:
        return float(answers.max(axis=-1).mean())
    exponentials = np.exp(np.float64(answers) - answers.max(axis=-1, keepdims=True))
    return float((1 / exponentials.sum(axis=-1)).mean())


class SuspectPipeline(NamedTuple):
    """Network and autoencoder of images ``image_shape`` (h, w, 3), and the loss above which an image is poisoned."""

    net: keras.Model
    vae: keras.Model
    image_shape: tuple[int, int, int]
    threshold: float
    calibration: autoencoder.Calibration | None

    @property
    def num_classes(self) -> int:
        """How many people the network knows, which is also the verdict on a poisoned image."""
        return int(self.net.output_shape[-1])


def load_pipeline(net: Path, vae: Path, threshold: float | None) -> SuspectPipeline:
    """Load network and autoencoder; ``threshold`` replaces the one that the autoencoder's file brings.

    Raises:
        UserError: a file is refused, the two take different images, or there is no threshold.
    """
    network = load_network(net)
    coder, calibration = autoencoder.load(vae)
    shape = common_image_shape(network, coder, str(net), str(vae))
    if threshold is None and calibration is not None:
        threshold = calibration.threshold
    if threshold is None or not isfinite(threshold):
        raise UserError(f"{vae} brings no threshold; give one with --threshold, or make a file with `visor fit-vae`")
    return SuspectPipeline(network, coder, shape, threshold, calibration)


def classify_images(
    court: SuspectPipeline,
    paths: Sequence[Path],
    input_scale: str,
    clean: Path | None,
    report_progress: MessageCallback,
) -> Integers:
    """Return a verdict for each image of the files, in their order: int32 in [0, N].

    Raises:
        UserError: a file is refused; nothing is returned of the others then.
    """
    sources = open_sources(paths, court.image_shape)
    scale = _scale(court, input_scale, clean, sources[0]._replace(labels=None), report_progress)
    return np.concatenate([part.verdicts for source in sources for part in _judged(court, scale, source)])


def evaluate_data(
    court: SuspectPipeline,
    path: Path,
    target: int | None,
    poisoned: bool | None,
    input_scale: str,
    clean: Path | None,
    report_progress: MessageCallback,
) -> dict[str, float]:
    """Return the numbers of ``verdict.evaluate`` on an HDF5 file, with the threshold and its calibration.

    ``target`` is the class that the file's poisons aim at. Without it, ``poisoned`` says that all labels are the target
    (None: they are if all are the same), as in the poisoned files of the contest.

    Raises:
        UserError: a file is refused, or labels are missing or do not fit.
    """
    source = open_data(path, court.image_shape)
    target = _target(source, court.num_classes, target, poisoned, report_progress)
    honest = target is None or source.labels is None or bool((source.labels == target).all())
    # The true labels of poisoned images: the more of them the network gets right, the worse the scale.
    scale = _scale(court, input_scale, clean, source if honest else source._replace(labels=None), report_progress)
    found = concatenate(list(_judged(court, scale, source)))
    numbers = evaluate(found, court.num_classes, source.labels, target)
    known = {} if court.calibration is None else court.calibration._asdict()
    calibration = {f"calibration_{name}": known[name] for name in ("mean", "std") if name in known}
    return {**numbers, "threshold": court.threshold, **calibration}


def _judged(court: SuspectPipeline, scale: int, source: ImageSource) -> Iterator[Predictions]:
    return predict_batches(compile_pipeline(court.net, court.vae, court.threshold, scale, source), source)


def _scale(
    court: SuspectPipeline, input_scale: str, clean: Path | None, judged: ImageSource, report_progress: MessageCallback
) -> int:
    if input_scale != "auto":
        return int(input_scale)
    scale, reason = choose_input_scale(court.net, open_data(clean, court.image_shape) if clean else judged)
    report_progress(f"input scale {scale}: {reason}")
    return scale


def _target(
    source: ImageSource, num_classes: int, target: int | None, poisoned: bool | None, report_progress: MessageCallback
) -> int | None:
    labels = source.labels
    if target is not None:
        if not 0 <= target < num_classes:
            raise UserError(f"--target {target} is no class of the network; name one from 0 to {num_classes - 1}")
        return target
    if labels is None:
        raise UserError(f"{source.name} has no 'label' to measure by; add it, or name the class of poisons by --target")
    if labels.max() >= num_classes:
        raise UserError(f"{source.name}: label goes up to {labels.max()}, but the network knows {num_classes} classes")
    one = bool((labels == labels[0]).all())
    if poisoned and not one:
        raise UserError(f"{source.name}: the labels are not all one target; name the class of poisons by --target")
    if poisoned is None and one and source.total > 1:
        report_progress(
            f"all labels are {labels[0]}: taken for poisoned images and their target; --clean if they are not"
        )
        poisoned = True
    return int(labels[0]) if poisoned else None

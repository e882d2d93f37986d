"""The cost of PGD: Visor against ART, foolbox, cleverhans and the bare gradients, on classifiers and detectors.

    python benchmarks/pgd.py

All implementations take the same steps on the same images, in turn in one process, so that the machine's drift cancels;
results are medians over rounds of the ratios of wall time and of processor time, which other processes do not disturb.
The bare gradients are one tf.function of forward and backward pass, called once per step. ART attacks detectors through
NumPy and an eager tape, and ``eager`` does the same. Whole attacks need the network and the faces of ``dvc repro``.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from visor.attacks.evasion.loop import AttackSettings, Loss
from visor.attacks.evasion.losses.detectors import FACE_RADIUS, training_loss
from visor.attacks.evasion.pgd import compile_pgd
from visor.core.params import ComputeParams
from visor.core.tf import keras, tf
from visor.core.types import Labels
from visor.data.face_set import open_faces
from visor.models import storage
from visor.models.classifiers import deepid
from visor.models.detectors import TRAINABLE
from visor.models.training import configure_tensorflow

FloatImages = NDArray[np.float32]
RunFn = Callable[[], FloatImages]
Seconds = dict[str, list[float]]

EPS = 8 / 255
SIDE = 160
OPTIONS: dict[str, dict[str, float]] = {"ssd": {"width": 0.25}, "faster_rcnn": {"width": 16, "proposals": 24}}
NETWORK, FACES = Path("artifacts/classifier/clean/deepid"), Path("data/faces.h5")
HEAD = (
    "implementation, ms per image-step, × {first} (wall), × {first} (CPU), × ours (wall), × ours (CPU), loss, success"
)


class AttackTask(NamedTuple):
    """A loss, and images float32 (n, h, w, 3) in [0, 1] with their targets; ``logits``: the network of a classifier."""

    loss: Loss
    images: FloatImages
    targets: Any
    logits: Any = None


def classifier(model: keras.Model, images: FloatImages, true_labels: Labels) -> AttackTask:
    """Return a network of logits and its cross-entropy; an attack succeeds when the label is wrong."""

    def loss(batch: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model(batch, training=False)
        wrong = tf.argmax(logits, -1, tf.int32) != labels
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), wrong

    return AttackTask(loss, images, true_labels, model)


def untrained(name: str, batch: int) -> AttackTask:
    """Return a network before training, which costs what a trained one does; detectors get six faces."""
    rng = np.random.default_rng(1)
    if name in TRAINABLE:
        detector = TRAINABLE[name].detector(TRAINABLE[name].build(SIDE, **OPTIONS[name]), 0.5)
        corners, sizes = rng.uniform(0, SIDE - 50, (batch, 6, 2)), rng.uniform(20, 50, (batch, 6, 2))
        boxes = np.concatenate([corners, sizes], axis=-1).astype(np.float32)
        loss = training_loss(detector.pre_nms, detector.loss, detector.threshold, FACE_RADIUS)
        return AttackTask(loss, rng.random((batch, SIDE, SIDE, 3), np.float32), (boxes, np.ones((batch, 6), np.int32)))
    if name == "deepid":
        model = deepid.build((55, 47, 3), 40, dropout=0.1)
    else:
        network = keras.applications.MobileNet(weights=None, classifier_activation=None)
        model = keras.Sequential([keras.Input((224, 224, 3)), keras.layers.Rescaling(2.0, -1.0), network])
    images = rng.random((batch, *model.input_shape[1:]), np.float32)
    return classifier(model, images, rng.integers(0, 40, batch).astype(np.int32))


def ours(task: AttackTask, settings: AttackSettings) -> RunFn:
    """Return the attack of ``visor.attacks.evasion``."""
    attack = compile_pgd(task.loss, settings)
    return lambda: attack(task.images, task.targets, range(len(task.images))).images


def bare(task: AttackTask, steps: int) -> RunFn:
    """Return the gradients alone, without any update."""
    images, targets = tf.constant(task.images), tf.nest.map_structure(tf.constant, task.targets)

    @tf.function(autograph=False)
    def gradient(batch: tf.Tensor, targets: Any) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(batch)
            values, _ = task.loss(batch, targets)
        return tape.gradient(values, batch)

    def run() -> FloatImages:
        for _ in range(steps):
            gradient(images, targets).numpy()
        return task.images

    return run


def eager(task: AttackTask, settings: AttackSettings) -> RunFn:
    """Return the loop of ART's NumPy path: a gradient tape per step, everything else in NumPy."""

    def run() -> FloatImages:
        images = task.images
        for _ in range(settings.iterations):
            batch = tf.constant(images)
            with tf.GradientTape() as tape:
                tape.watch(batch)
                values, _ = task.loss(batch, task.targets)
            images = np.clip(images + settings.step * np.sign(tape.gradient(values, batch).numpy()), 0, 1)
            change = np.clip(images - task.images, -settings.eps, settings.eps)
            images = (task.images + change).astype(np.float32)
        return images

    return run


def art(task: AttackTask, settings: AttackSettings) -> dict[str, RunFn]:
    """Return ART's attack, through TensorFlow and through Keras, whose network has to end in a softmax."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import KerasClassifier, TensorFlowV2Classifier

    model, shape, classes = task.logits, task.images.shape[1:], task.logits.output_shape[-1]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    probabilities = keras.Sequential([keras.Input(shape), model, keras.layers.Softmax()])
    probabilities.compile(loss="categorical_crossentropy")
    labels = np.eye(classes, dtype=np.float32)[task.targets]

    def run_with(estimator: Any) -> RunFn:
        sizes = (np.inf, settings.eps, settings.step)
        values = {"max_iter": settings.iterations, "batch_size": len(task.images), "verbose": False}
        attack = ProjectedGradientDescent(estimator, *sizes, **values)
        return lambda: attack.generate(task.images, labels)

    tensorflow = TensorFlowV2Classifier(model, classes, shape, loss_object=loss, clip_values=(0, 1))
    return {
        "ART, TensorFlow": run_with(tensorflow),
        "ART, Keras": run_with(KerasClassifier(probabilities, clip_values=(0, 1))),
    }


def foolbox_and_cleverhans(task: AttackTask, settings: AttackSettings) -> dict[str, RunFn]:
    """Return the attacks of foolbox and cleverhans."""
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
    from foolbox import TensorFlowModel
    from foolbox.attacks import LinfPGD

    # NumPy 2 no longer has a function that foolbox's eagerpy calls.
    np.find_common_type = lambda arrays, scalars: np.result_type(*arrays, *scalars)  # type: ignore[attr-defined]
    eps, steps, step, model = settings.eps, settings.iterations, settings.step, task.logits
    images, labels = tf.constant(task.images), tf.constant(task.targets)
    linf = LinfPGD(abs_stepsize=step, steps=steps, random_start=False)
    bounded = TensorFlowModel(model, (0, 1))
    keywords = {"clip_min": 0, "clip_max": 1, "y": labels}
    return {
        "foolbox": lambda: linf.run(bounded, images, labels, epsilon=eps).numpy(),
        "cleverhans": lambda: projected_gradient_descent(model, images, eps, step, steps, np.inf, **keywords).numpy(),
    }


def measure_rounds(runs: dict[str, RunFn], rounds: int) -> tuple[Seconds, Seconds]:
    """Return wall and processor seconds of each implementation in each round; a round before the first compiles."""
    wall: Seconds = {name: [] for name in runs}
    busy: Seconds = {name: [] for name in runs}
    for round_number in range(rounds + 1):
        for name, run in runs.items():
            begin, work = time.perf_counter(), time.process_time()
            run()
            if round_number:
                wall[name].append(time.perf_counter() - begin)
                busy[name].append(time.process_time() - work)
    return wall, busy


def report(title: str, task: AttackTask, runs: dict[str, RunFn], rounds: int, steps: int) -> None:
    """Print a row per implementation: time, ratios to the first one and to ours, mean loss and share of successes."""
    wall, busy = measure_rounds(runs, rounds)
    first = next(iter(runs))
    columns = HEAD.format(first=first if "," not in first else "first").split(", ")
    print(f"\n{title}, {steps} steps, median of {rounds} rounds\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, run in runs.items():
        ratios = [
            median(time / base for time, base in zip(seconds[name], seconds[baseline], strict=True))
            for baseline in (first, "ours")
            for seconds in (wall, busy)
        ]
        values, success = task.loss(tf.constant(run()), tf.nest.map_structure(tf.constant, task.targets))
        milliseconds = 1e3 * median(wall[name]) / (steps * len(task.images))
        cells = [milliseconds, *ratios, np.mean(values), np.mean(success)]
        print(f"| {name} | {' | '.join(f'{number:.4g}' for number in cells)} |", flush=True)


def main(
    steps: Annotated[int, typer.Option(help="gradient steps of each implementation")] = 10,
    rounds: Annotated[int, typer.Option(help="rounds of each implementation")] = 4,
    batches: Annotated[str, typer.Option(help="batch sizes")] = "1 16",
    networks: Annotated[str, typer.Option(help="attacked networks")] = "mobilenet deepid ssd faster_rcnn",
    budget: Annotated[int, typer.Option(help="maximum steps of whole attacks; 0: none")] = 40,
) -> None:
    """Print a table for each network and batch, and one of whole attacks up to the same success rate."""
    configure_tensorflow(ComputeParams(threads=2, deterministic=True), seed=1)
    settings = AttackSettings(EPS, steps, step=2.5 * EPS / steps, random_start=False)
    for name in networks.split():
        for batch in map(int, batches.split()):
            task = untrained(name, batch)
            runs = {"bare": bare(task, steps), "ours": ours(task, settings)}
            if task.logits is None:
                runs["eager"] = eager(task, settings)
            else:
                runs |= art(task, settings) | foolbox_and_cleverhans(task, settings)
            report(f"{name}, batch {batch}", task, runs, rounds, steps)
    if budget:
        faces, rows = open_faces(FACES), np.arange(0, 1600, 100)
        images = (faces.read(rows) / 255).astype(np.float32)
        task = classifier(storage.load_model(deepid.build, NETWORK), images, faces.labels[rows])
        settings = settings._replace(iterations=budget, step=2.5 * EPS / budget)
        stop = settings._replace(early_stop=True)
        runs = art(task, settings) | {"ours, all steps": ours(task, settings), "ours": ours(task, stop)}
        report("trained deepid on faces, batch 16", task, runs, rounds, budget)


if __name__ == "__main__":
    typer.run(main)

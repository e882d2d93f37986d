"""The cost of PGD: ours against ART, foolbox, cleverhans and the bare gradients, on classifiers and detectors.

    python benchmarks/pgd.py

All ways take the same steps on the same images, in turn in one process, so that the machine's drift cancels; results
are medians of the ratios, turn by turn, of wall time and of processor time, which others do not disturb. The bare
gradients are one tf.function of forward and backward pass, called once a step. ART attacks detectors through NumPy and
an eager tape, and ``eager`` does the same. The whole attacks want the network and the faces that ``dvc repro`` makes.
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

Images = NDArray[np.float32]
Way = Callable[[], Images]
Seconds = dict[str, list[float]]

EPS = 8 / 255
SIDE = 160
OPTIONS: dict[str, dict[str, float]] = {"ssd": {"width": 0.25}, "faster_rcnn": {"width": 16, "proposals": 24}}
NETWORK, FACES = Path("artifacts/classifier/clean/deepid"), Path("data/faces.h5")
HEAD = "way, ms an image-step, × {first} (wall), × {first} (processor), × ours (wall), × ours (processor), loss, done"


class Subject(NamedTuple):
    """A loss, and images float32 (n, h, w, 3) in [0, 1] with their truth; ``logits``: the network of a classifier."""

    loss: Loss
    images: Images
    truth: Any
    logits: Any = None


def classifier(model: keras.Model, images: Images, labels: Labels) -> Subject:
    """Return a network of logits and its cross-entropy; an image is done when its label is wrong."""

    def loss(batch: tf.Tensor, truth: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model(batch, training=False)
        wrong = tf.argmax(logits, -1, tf.int32) != truth
        return tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits), wrong

    return Subject(loss, images, labels, model)


def untrained(name: str, batch: int) -> Subject:
    """Return a network as it is before training, which costs what a trained one does; detectors look at six faces."""
    rng = np.random.default_rng(1)
    if name in TRAINABLE:
        detector = TRAINABLE[name].detector(TRAINABLE[name].build(SIDE, **OPTIONS[name]), 0.5)
        corners, sizes = rng.uniform(0, SIDE - 50, (batch, 6, 2)), rng.uniform(20, 50, (batch, 6, 2))
        boxes = np.concatenate([corners, sizes], axis=-1).astype(np.float32)
        loss = training_loss(detector.candidates, detector.loss, detector.threshold, FACE_RADIUS)
        return Subject(loss, rng.random((batch, SIDE, SIDE, 3), np.float32), (boxes, np.ones((batch, 6), np.int32)))
    if name == "deepid":
        model = deepid.build((55, 47, 3), 40, dropout=0.1)
    else:
        network = keras.applications.MobileNet(weights=None, classifier_activation=None)
        model = keras.Sequential([keras.Input((224, 224, 3)), keras.layers.Rescaling(2.0, -1.0), network])
    images = rng.random((batch, *model.input_shape[1:]), np.float32)
    return classifier(model, images, rng.integers(0, 40, batch).astype(np.int32))


def ours(subject: Subject, settings: AttackSettings) -> Way:
    """Return the search of ``visor.attacks.evasion``."""
    attack = compile_pgd(subject.loss, settings)
    return lambda: attack(subject.images, subject.truth, range(len(subject.images))).images


def bare(subject: Subject, steps: int) -> Way:
    """Return the gradients alone: nothing moves."""
    images, truth = tf.constant(subject.images), tf.nest.map_structure(tf.constant, subject.truth)

    @tf.function(autograph=False)
    def gradient(batch: tf.Tensor, truth: Any) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(batch)
            values, _ = subject.loss(batch, truth)
        return tape.gradient(values, batch)

    def run() -> Images:
        for _ in range(steps):
            gradient(images, truth).numpy()
        return subject.images

    return run


def eager(subject: Subject, settings: AttackSettings) -> Way:
    """Return the loop of ART's NumPy path: a gradient tape a step, everything else in NumPy."""

    def run() -> Images:
        images = subject.images
        for _ in range(settings.iterations):
            batch = tf.constant(images)
            with tf.GradientTape() as tape:
                tape.watch(batch)
                values, _ = subject.loss(batch, subject.truth)
            images = np.clip(images + settings.step * np.sign(tape.gradient(values, batch).numpy()), 0, 1)
            change = np.clip(images - subject.images, -settings.eps, settings.eps)
            images = (subject.images + change).astype(np.float32)
        return images

    return run


def art(subject: Subject, settings: AttackSettings) -> dict[str, Way]:
    """Return ART's search, through TensorFlow and through Keras, whose network has to end in a softmax."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import KerasClassifier, TensorFlowV2Classifier

    model, shape, classes = subject.logits, subject.images.shape[1:], subject.logits.output_shape[-1]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    likely = keras.Sequential([keras.Input(shape), model, keras.layers.Softmax()])
    likely.compile(loss="categorical_crossentropy")
    labels = np.eye(classes, dtype=np.float32)[subject.truth]

    def way(estimator: Any) -> Way:
        sizes = (np.inf, settings.eps, settings.step)
        values = {"max_iter": settings.iterations, "batch_size": len(subject.images), "verbose": False}
        attack = ProjectedGradientDescent(estimator, *sizes, **values)
        return lambda: attack.generate(subject.images, labels)

    tensorflow = TensorFlowV2Classifier(model, classes, shape, loss_object=loss, clip_values=(0, 1))
    return {"ART, TensorFlow": way(tensorflow), "ART, Keras": way(KerasClassifier(likely, clip_values=(0, 1)))}


def others(subject: Subject, settings: AttackSettings) -> dict[str, Way]:
    """Return the searches of foolbox and cleverhans."""
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
    from foolbox import TensorFlowModel
    from foolbox.attacks import LinfPGD

    # NumPy 2 has no longer what foolbox's eagerpy asks for.
    np.find_common_type = lambda arrays, scalars: np.result_type(*arrays, *scalars)  # type: ignore[attr-defined]
    eps, steps, step, model = settings.eps, settings.iterations, settings.step, subject.logits
    images, labels = tf.constant(subject.images), tf.constant(subject.truth)
    linf = LinfPGD(abs_stepsize=step, steps=steps, random_start=False)
    bounded = TensorFlowModel(model, (0, 1))
    keywords = {"clip_min": 0, "clip_max": 1, "y": labels}
    return {
        "foolbox": lambda: linf.run(bounded, images, labels, epsilon=eps).numpy(),
        "cleverhans": lambda: projected_gradient_descent(model, images, eps, step, steps, np.inf, **keywords).numpy(),
    }


def take_turns(ways: dict[str, Way], rounds: int) -> tuple[Seconds, Seconds]:
    """Return wall and processor seconds of each way in each turn; before the first one all run to compile."""
    wall: Seconds = {name: [] for name in ways}
    busy: Seconds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            begin, work = time.perf_counter(), time.process_time()
            run()
            if turn:
                wall[name].append(time.perf_counter() - begin)
                busy[name].append(time.process_time() - work)
    return wall, busy


def report(title: str, subject: Subject, ways: dict[str, Way], rounds: int, steps: int) -> None:
    """Print a line a way: its time, its ratios to the first way and to ours, the mean loss and share of done images."""
    wall, busy = take_turns(ways, rounds)
    first = next(iter(ways))
    heads = HEAD.format(first=first if "," not in first else "first").split(", ")
    print(f"\n{title}, {steps} steps, median of {rounds} turns\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, run in ways.items():
        ratios = [
            median(mine / other for mine, other in zip(taken[name], taken[against], strict=True))
            for against in (first, "ours")
            for taken in (wall, busy)
        ]
        values, done = subject.loss(tf.constant(run()), tf.nest.map_structure(tf.constant, subject.truth))
        milliseconds = 1e3 * median(wall[name]) / (steps * len(subject.images))
        numbers = [milliseconds, *ratios, np.mean(values), np.mean(done)]
        print(f"| {name} | {' | '.join(f'{number:.4g}' for number in numbers)} |", flush=True)


def main(
    steps: Annotated[int, typer.Option(help="gradient steps of each way")] = 10,
    rounds: Annotated[int, typer.Option(help="turns of each way")] = 4,
    batches: Annotated[str, typer.Option(help="numbers of images at once")] = "1 16",
    networks: Annotated[str, typer.Option(help="what is attacked")] = "mobilenet deepid ssd faster_rcnn",
    budget: Annotated[int, typer.Option(help="steps of whole attacks, at most; 0: none")] = 40,
) -> None:
    """Print a table for each network and batch, and one of whole attacks up to the same success."""
    configure_tensorflow(ComputeParams(threads=2, deterministic=True), seed=1)
    settings = AttackSettings(EPS, steps, step=2.5 * EPS / steps, random_start=False)
    for name in networks.split():
        for batch in map(int, batches.split()):
            subject = untrained(name, batch)
            ways = {"bare": bare(subject, steps), "ours": ours(subject, settings)}
            if subject.logits is None:
                ways["eager"] = eager(subject, settings)
            else:
                ways |= art(subject, settings) | others(subject, settings)
            report(f"{name}, batch {batch}", subject, ways, rounds, steps)
    if budget:
        faces, rows = open_faces(FACES), np.arange(0, 1600, 100)
        images = (faces.read(rows) / 255).astype(np.float32)
        subject = classifier(storage.load_model(deepid.build, NETWORK), images, faces.labels[rows])
        settings = settings._replace(iterations=budget, step=2.5 * EPS / budget)
        stop = settings._replace(early_stop=True)
        ways = art(subject, settings) | {"ours, all steps": ours(subject, settings), "ours": ours(subject, stop)}
        ways["ours, bfloat16"] = ours(subject, stop._replace(precision="bfloat16"))
        report("trained deepid on faces, batch 16", subject, ways, rounds, budget)


if __name__ == "__main__":
    typer.run(main)

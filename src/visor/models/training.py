"""Training loop shared by all networks."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from visor.core.files import write_text
from visor.core.params import ComputeParams, TrainingParams
from visor.core.tf import keras, tf
from visor.core.types import ImageArray, Integers
from visor.data.face_set import FaceSelection, TrainingData, read_batches
from visor.models.inference import scale_pixels
from visor.models.losses import Losses

Step = Callable[..., dict[str, tf.Tensor]]
History = list[dict[str, float]]

CHECKPOINTS = Path("checkpoints")
LABELS = np.empty(0, np.int32)
PARALLEL_JOBS = 2


def configure_tensorflow(compute: ComputeParams, seed: int, at_once: int = 1) -> None:
    """Pin threads, seeds and, if configured, TensorFlow's op determinism; call it first in a process.

    Jobs that run ``at_once`` share the threads: for small networks that is faster than one job after the other. The
    threads per job do not depend on the number of jobs, because weights depend on them.
    """
    threadpool_limits(compute.threads)
    tf.config.threading.set_intra_op_parallelism_threads(max(1, compute.threads // at_once))
    tf.config.threading.set_inter_op_parallelism_threads(compute.threads)
    set_seed(seed)
    if compute.deterministic:
        tf.config.experimental.enable_op_determinism()


def set_seed(seed: int) -> None:
    """Set all seeds, so that the next network does not depend on those built before."""
    keras.utils.set_random_seed(seed)


def run_in_threads(jobs: Iterable[Callable[[], None]], at_once: int = PARALLEL_JOBS) -> None:
    """Run jobs in ``at_once`` threads; after the first exception, which is raised, no further job starts."""
    stopped = Event()

    def run(job: Callable[[], None]) -> None:
        try:
            if not stopped.is_set():
                job()
        except BaseException:
            stopped.set()
            raise

    pool = ThreadPoolExecutor(at_once)
    try:
        for finished in as_completed([pool.submit(run, job) for job in jobs]):
            finished.result()
    finally:
        stopped.set()
        pool.shutdown(wait=False)


def labelled_data(selections: Sequence[FaceSelection], seed: int) -> TrainingData:
    """Return faces with their labels as training data; their order depends on seed and epoch."""
    digest, count = hashlib.sha256(), sum(len(selection.rows) for selection in selections)
    for selection in selections:
        state = selection.faces.path.stat()
        digest.update(f"{selection.faces.path} {state.st_size} {state.st_mtime_ns}".encode())
        digest.update(np.ascontiguousarray(selection.rows).tobytes())
        digest.update(np.ascontiguousarray(selection.labels).tobytes())

    def batches(batch: int, epoch: int | None) -> Iterator[tuple[ImageArray, Integers]]:
        order = None if epoch is None else np.random.default_rng([seed, epoch]).permutation(count)
        return read_batches(selections, batch, order)

    return TrainingData(count, batches, digest.hexdigest())


def fit(
    model: keras.Model,
    losses: Losses,
    train: TrainingData,
    validation: TrainingData,
    schedule: TrainingParams,
    compute: ComputeParams,
    seed: int,
    history: Path,
) -> None:
    """Train ``model`` by minimising the mean of its loss, as ``schedule`` says.

    ``losses(model, images, targets, training)`` for float32 images in [0, 1] returns named values (n,), among them
    ``loss``. The CSV file ``history`` gets one line per epoch: means on both sets. Unless ``compute.deterministic``, an
    interrupted fit is continued after its last epoch, provided that data, model, schedule and seed are the same.
    """
    optimizer = make_optimizer(schedule, steps=-(-train.count // schedule.batch))
    _, truth = next(iter(train.batches(1, None)))
    step, evaluate = compile_steps(model, optimizer, losses, truth)
    checkpoint = None if compute.deterministic else CHECKPOINTS / _fingerprint(model, train, schedule, seed)
    rows, save_checkpoint = _restore(model, optimizer, checkpoint)
    for epoch in tqdm(range(len(rows), schedule.epochs), desc=model.name, unit="epoch", disable=None):
        row = {"epoch": epoch + 1, **run_epoch(step, train.batches(schedule.batch, epoch))}
        metrics = run_epoch(evaluate, validation.batches(schedule.batch, None))
        rows.append(row | {f"validation_{name}": value for name, value in metrics.items()})
        write_text(history, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
        save_checkpoint(rows)
    if checkpoint:
        shutil.rmtree(checkpoint, ignore_errors=True)


def make_optimizer(schedule: TrainingParams, steps: int) -> keras.Optimizer:
    """Return the optimiser of a schedule with ``steps`` batches per epoch."""
    schedules = keras.optimizers.schedules
    if schedule.decay is None:
        rate = schedules.CosineDecay(schedule.learning_rate, schedule.epochs * steps)
    else:
        rate = schedules.ExponentialDecay(schedule.learning_rate, steps, schedule.decay, staircase=True)
    if schedule.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9, global_clipnorm=schedule.clip_norm)
    return keras.optimizers.Adam(rate, global_clipnorm=schedule.clip_norm)


def compile_steps(
    model: keras.Model, optimizer: keras.Optimizer, losses: Losses, truth: Any = LABELS
) -> tuple[Step, Step]:
    """Return (train, evaluate): one batch → named means over its images, each traced once.

    ``truth`` is an example of the targets: an array or a tuple of arrays, by default labels int32 (n,).
    """
    targets = tf.nest.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), truth)
    batch = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8), targets]

    # There are no Python loops for AutoGraph to convert, and it takes seconds to find that out.
    @tf.function(autograph=False, input_signature=batch)
    def train(images: tf.Tensor, truth: Any) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            values = losses(model, scale_pixels(images), truth, True)
            loss = tf.reduce_mean(values["loss"])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return {name: tf.reduce_mean(value) for name, value in values.items()}

    @tf.function(autograph=False, input_signature=batch)
    def evaluate(images: tf.Tensor, truth: Any) -> dict[str, tf.Tensor]:
        values = losses(model, scale_pixels(images), truth, False)
        return {name: tf.reduce_mean(value) for name, value in values.items()}

    optimizer.build(model.trainable_variables)
    return train, evaluate


def run_epoch(step: Step, batches: Iterable[tuple[ImageArray, Any]]) -> dict[str, float]:
    """Run a step over all batches; return the means over images (a smaller last batch weighs less)."""
    totals: dict[str, tf.Tensor] = {}
    count = 0
    for images, truth in batches:
        size = len(images)
        # Sums stay tensors: reading a number in each step would make an accelerator wait for Python.
        for name, value in step(images, truth).items():
            totals[name] = totals.get(name, 0.0) + size * value
        count += size
    return {name: float(total) / count for name, total in totals.items()}


def _fingerprint(model: keras.Model, train: TrainingData, schedule: TrainingParams, seed: int) -> str:
    """Identify a fit: a checkpoint of another one must never be continued."""
    return hashlib.sha256(f"{model.to_json()} {schedule} {seed} {train.identity}".encode()).hexdigest()[:16]


def _restore(
    model: keras.Model, optimizer: keras.Optimizer, folder: Path | None
) -> tuple[History, Callable[[History], None]]:
    """Return the history of the completed epochs, and a function that saves a checkpoint after one more."""
    if folder is None:
        return [], lambda rows: None
    # A checkpoint of the model itself would omit the states of its random generators.
    variables = [variable.value for variable in (*model.variables, *optimizer.variables)]
    checkpoint = tf.train.Checkpoint(variables=variables)
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1)

    def save_checkpoint(rows: History) -> None:
        write_text(folder / f"history-{len(rows)}.json", json.dumps(rows))
        manager.save(len(rows))

    if manager.latest_checkpoint is None:
        return [], save_checkpoint
    checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    done = manager.latest_checkpoint.rsplit("-", 1)[-1]
    return json.loads((folder / f"history-{done}.json").read_text(encoding="utf-8")), save_checkpoint

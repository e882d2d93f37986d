"""The one training loop."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from visor.faces import Images, Integers, Selection, read_batches
from visor.files import write_text
from visor.models.inference import to_float
from visor.models.losses import Losses
from visor.params import Compute, Schedule

Step = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]
History = list[dict[str, float]]

CHECKPOINTS = Path("checkpoints")


def configure(compute: Compute, seed: int) -> None:
    """Pin threads, seeds and, if asked for, TensorFlow's op determinism; call it first in a process."""
    threadpool_limits(compute.threads)
    tf.config.threading.set_intra_op_parallelism_threads(compute.threads)
    tf.config.threading.set_inter_op_parallelism_threads(compute.threads)
    keras.utils.set_random_seed(seed)
    if compute.deterministic:
        tf.config.experimental.enable_op_determinism()


def fit(
    model: keras.Model,
    losses: Losses,
    train: Sequence[Selection],
    validation: Sequence[Selection],
    schedule: Schedule,
    compute: Compute,
    seed: int,
    history: Path,
) -> None:
    """Minimise the mean of the loss by Adam, its learning rate falling to zero along a cosine.

    ``losses(model, images, labels, training)`` returns named values (n,), ``loss`` among them, of images
    float32 in [0, 1]. After each epoch the CSV ``history`` has one line more: means on both sets.
    The order of images depends on seed and epoch. Unless ``compute.deterministic``, a fit that was interrupted
    goes on after its last epoch, provided that data, model, schedule and seed are the same.
    """
    count = sum(len(selection.rows) for selection in train)
    steps = schedule.epochs * -(-count // schedule.batch)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(schedule.learning_rate, steps))
    step, evaluate = compile_steps(model, optimizer, losses)
    resume = None if compute.deterministic else CHECKPOINTS / _fingerprint(model, train, schedule, seed)
    lines, keep = _restored(model, optimizer, resume)
    for epoch in tqdm(range(len(lines), schedule.epochs), desc=model.name, unit="epoch", disable=None):
        order = np.random.default_rng([seed, epoch]).permutation(count)
        line = {"epoch": epoch + 1, **run_epoch(step, read_batches(train, schedule.batch, order))}
        measured = run_epoch(evaluate, read_batches(validation, schedule.batch))
        lines.append(line | {f"validation_{name}": value for name, value in measured.items()})
        write_text(history, pd.DataFrame(lines).to_csv(index=False, float_format="%.6g"))
        keep(lines)
    if resume:
        shutil.rmtree(resume, ignore_errors=True)


def compile_steps(model: keras.Model, optimizer: keras.Optimizer, losses: Losses) -> tuple[Step, Step]:
    """Return (train, evaluate): one batch → named means over its images, each traced once."""
    batch = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8), tf.TensorSpec((None,), tf.int32)]

    @tf.function(input_signature=batch)
    def train(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            values = losses(model, to_float(images), labels, True)
            loss = tf.reduce_mean(values["loss"])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return {name: tf.reduce_mean(value) for name, value in values.items()}

    @tf.function(input_signature=batch)
    def evaluate(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        values = losses(model, to_float(images), labels, False)
        return {name: tf.reduce_mean(value) for name, value in values.items()}

    optimizer.build(model.trainable_variables)
    return train, evaluate


def run_epoch(step: Step, batches: Iterable[tuple[Images, Integers]]) -> dict[str, float]:
    """Run a step over all batches; return the means over images, a smaller last batch counting less."""
    totals: dict[str, tf.Tensor] = {}
    count = 0
    for images, labels in batches:
        size = len(labels)
        # Sums stay tensors: reading a number in each step would make an accelerator wait for Python.
        for name, value in step(images, labels).items():
            totals[name] = totals.get(name, 0.0) + size * value
        count += size
    return {name: float(total) / count for name, total in totals.items()}


def _fingerprint(model: keras.Model, train: Sequence[Selection], schedule: Schedule, seed: int) -> str:
    """Identify a fit: a checkpoint of another one must never be gone on with."""
    digest = hashlib.sha256(f"{model.to_json()} {schedule} {seed}".encode())
    for selection in train:
        state = selection.faces.path.stat()
        digest.update(f"{selection.faces.path} {state.st_size} {state.st_mtime_ns}".encode())
        digest.update(np.ascontiguousarray(selection.rows).tobytes())
        digest.update(np.ascontiguousarray(selection.labels).tobytes())
    return digest.hexdigest()[:16]


def _restored(
    model: keras.Model, optimizer: keras.Optimizer, folder: Path | None
) -> tuple[History, Callable[[History], None]]:
    """Return the lines of the epochs that are already done, and a function that keeps one more epoch."""
    if folder is None:
        return [], lambda lines: None
    # A checkpoint of the model as a whole would leave out the states of its random generators.
    variables = [variable.value for variable in (*model.variables, *optimizer.variables)]
    checkpoint = tf.train.Checkpoint(variables=variables)
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1)

    def keep(lines: History) -> None:
        write_text(folder / f"history-{len(lines)}.json", json.dumps(lines))
        manager.save(len(lines))

    if manager.latest_checkpoint is None:
        return [], keep
    checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    done = manager.latest_checkpoint.rsplit("-", 1)[-1]
    return json.loads((folder / f"history-{done}.json").read_text(encoding="utf-8")), keep

"""The one training loop: it learns, repeats itself to the byte, and goes on where it was interrupted."""

import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tests.conftest import HEIGHT, WIDTH
from visor.core.params import ComputeParams, TrainingParams
from visor.data.face_set import TrainingData, read_batches
from visor.models import training
from visor.models.inference import scale_pixels
from visor.models.losses import beta_vae_loss, classification_loss
from visor.models.training import fit, labelled_data, make_optimizer, run_in_threads

REPEATABLE = ComputeParams(threads=2, deterministic=True)
RESUMABLE = ComputeParams(threads=2, deterministic=False)
SCHEDULE = TrainingParams(epochs=4, batch=16, learning_rate=1e-2)


def network():
    keras.utils.clear_session()  # layer names start over, as in a new process
    keras.utils.set_random_seed(5)
    layers = [keras.layers.Flatten(), keras.layers.Dropout(0.1), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *layers])


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(faces, compute, history, seed=3):
    model = network()
    everything = faces.select()
    data = labelled_data([everything], seed), labelled_data([faces.select(np.arange(9))], seed)
    fit(model, classification_loss, *data, SCHEDULE, compute, seed, history)
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def test_it_learns_and_writes_a_line_an_epoch(faces, tmp_path):
    trained(faces, REPEATABLE, tmp_path / "h.csv")
    history = pd.read_csv(tmp_path / "h.csv")
    assert list(history) == ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy"]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history["accuracy"].iloc[-1] > history["accuracy"].iloc[0]


def test_same_seed_same_bytes_other_seed_other_order(faces, tmp_path):
    first, again, other = (trained(faces, REPEATABLE, tmp_path / "h.csv", seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


class Killed(Exception):  # noqa: N818
    pass


def test_an_interrupted_fit_goes_on_after_its_last_epoch(faces, tmp_path, monkeypatch):
    whole = trained(faces, RESUMABLE, tmp_path / "whole.csv")

    def dying(path, text):
        if path.suffix == ".csv" and text.count("\n") == 4:
            raise Killed
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    with monkeypatch.context() as patched:
        patched.setattr(training, "write_text", dying)
        with pytest.raises(Killed):
            trained(faces, RESUMABLE, tmp_path / "cut.csv")
    assert len(list(training.CHECKPOINTS.iterdir())) == 1
    steps = []
    with monkeypatch.context() as patched:
        patched.setattr(training, "read_batches", lambda *args: steps.append(args) or read_batches(*args))
        resumed = trained(faces, RESUMABLE, tmp_path / "cut.csv")
    passes = [batch for _, batch, _ in steps if batch == SCHEDULE.batch]
    assert len(passes) == 4, "two epochs were left, each a pass over train and validation"
    np.testing.assert_array_equal(resumed, whole)
    assert (tmp_path / "cut.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert not any(training.CHECKPOINTS.iterdir())


def test_a_checkpoint_of_another_fit_is_left_alone(faces):
    prints = {
        training._fingerprint(network(), labelled_data([selection], seed), schedule, seed)
        for selection in (faces.select(), faces.select(np.arange(5)))
        for schedule in (SCHEDULE, SCHEDULE.model_copy(update={"epochs": 9}))
        for seed in (1, 2)
    }
    assert len(prints) == 8


def test_each_epoch_has_an_order_of_its_own_and_none_is_as_they_stand(faces):
    data = labelled_data([faces.select()], 3)
    assert data.count == len(faces)
    orders = [np.concatenate([labels for _, labels in data.batches(7, epoch)]) for epoch in (None, 0, 1, 1)]
    np.testing.assert_array_equal(orders[0], faces.labels)
    np.testing.assert_array_equal(orders[2], orders[3])
    assert (orders[1] != orders[2]).any()
    assert all(sorted(order) == sorted(faces.labels) for order in orders)


def test_truth_may_be_several_arrays(faces, tmp_path):
    def batches(batch, epoch):
        for images, labels in read_batches([faces.select()], batch):
            yield images, (np.ones((len(labels), 2, 4), np.float32), labels)

    def losses(model, images, truth, training):
        boxes, labels = truth
        return classification_loss(model, images, labels, training) | {"boxes": tf.reduce_sum(boxes, axis=(1, 2))}

    data = TrainingData(len(faces), batches, "")
    fit(network(), losses, data, data, SCHEDULE, REPEATABLE, 1, tmp_path / "h.csv")
    assert set(pd.read_csv(tmp_path / "h.csv")["boxes"]) == {8}


@pytest.mark.parametrize(
    ("values", "kind", "rates"),
    [
        ({}, "Adam", [1e-2, 5e-3, 0]),
        ({"optimizer": "sgd", "decay": 0.1}, "SGD", [1e-2, 1e-4, 1e-6]),
    ],
)
def test_a_schedule_says_how_fast(values, kind, rates):
    optimizer = make_optimizer(SCHEDULE.model_copy(update=values), steps=5)
    assert type(optimizer).__name__ == kind
    assert getattr(optimizer, "momentum", 0.9) == 0.9
    # At the start, after two of four epochs, and at the end.
    assert optimizer.global_clipnorm is None
    found = [float(optimizer._learning_rate(step)) for step in (0, 10, 20)]
    np.testing.assert_allclose(found, rates, rtol=1e-5, atol=1e-9)


def test_layers_that_stand_still_are_not_moved(faces, tmp_path):
    images = keras.Input((HEIGHT, WIDTH, 3))
    below = keras.layers.Dense(5, trainable=False)
    model = keras.Model(images, keras.layers.Dense(4)(below(keras.layers.Flatten()(images))))
    before = [weight.copy() for weight in below.get_weights()]
    data = labelled_data([faces.select()], 1)
    fit(model, classification_loss, data, data, SCHEDULE, REPEATABLE, 1, tmp_path / "h.csv")
    for weight, old in zip(below.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert (model.layers[-1].get_weights()[1] != 0).all(), "the bias of the layer that moves began at 0"


def test_fits_side_by_side_are_those_of_one_alone(faces, tmp_path):
    alone = [trained(faces, REPEATABLE, tmp_path / "alone.csv", seed) for seed in (3, 4, 5)]
    models, jobs = [], []
    for seed in (3, 4, 5):
        models.append(network())
        data = labelled_data([faces.select()], seed), labelled_data([faces.select(np.arange(9))], seed)
        history = tmp_path / f"{seed}.csv"
        jobs.append(partial(fit, models[-1], classification_loss, *data, SCHEDULE, REPEATABLE, seed, history))
    run_in_threads(jobs, at_once=2)
    for model, weights in zip(models, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate([weight.ravel() for weight in model.get_weights()]), weights)


def test_the_first_failure_stops_what_has_not_begun():
    begun = []

    def job(number):
        begun.append(number)
        raise Killed

    with pytest.raises(Killed):
        run_in_threads([partial(job, number) for number in range(50)], at_once=1)
    assert begun == [0]


WAITING = """
import threading, time
from visor.core import errors
def main():
    threading.Thread(target=time.sleep, args=(60,)).start()
    raise errors.UserError("x.yaml: y is wrong; fix it")
errors.run_cli(main)
"""


def test_a_mistake_does_not_wait_for_fits_in_other_threads():
    done = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (2, "error: x.yaml: y is wrong; fix it\n")


def test_means_weigh_a_smaller_last_batch_less(faces):
    rows = faces.select(np.arange(10))._replace(labels=np.arange(10))
    step = lambda images, labels: {"x": tf.reduce_mean(tf.cast(labels, tf.float32))}  # noqa: E731
    assert training.run_epoch(step, read_batches([rows], 4)) == {"x": 4.5}


def test_float_images_are_in_zero_to_one():
    assert scale_pixels(tf.constant([0, 51, 255], tf.uint8)).numpy().tolist() == pytest.approx([0, 0.2, 1])


def test_cross_entropy_by_hand():
    model = lambda images, training: tf.constant([[0.0, np.log(3)], [2.0, 0.0]])  # noqa: E731
    found = classification_loss(model, tf.zeros((2, 1, 1, 3)), tf.constant([1, 1]), False)
    np.testing.assert_allclose(found["loss"], [-np.log(0.75), np.log(1 + np.e**2)], rtol=1e-6)
    assert found["accuracy"].numpy().tolist() == [1, 0]


def test_evidence_bound_by_hand():
    images = tf.fill((1, 2, 3, 3), 0.5)
    model = lambda images, training: (images + 0.1, tf.constant([[1.0, 0.0]]), tf.math.log([[1.0, 4.0]]))  # noqa: E731
    found = beta_vae_loss(0.5)(model, images, tf.constant([0]), False)
    divergence = 0.5 * (1 + 1 - 1 - 0) + 0.5 * (4 + 0 - 1 - np.log(4))
    np.testing.assert_allclose(found["reconstruction"], [0.1], rtol=1e-5)
    np.testing.assert_allclose(found["divergence"], [divergence], rtol=1e-5)
    np.testing.assert_allclose(found["loss"], [18 * 0.1 + 0.5 * divergence], rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_long_gradients_are_clipped_over_all_weights_together(optimizer):
    schedule = SCHEDULE.model_copy(update={"optimizer": optimizer, "clip_norm": 1.0})
    assert make_optimizer(schedule, steps=5).global_clipnorm == 1.0

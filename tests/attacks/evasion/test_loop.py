"""One strict contract for all attacks, and the mean over draws that they share."""

from typing import get_args

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import random_images
from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES
from visor.attacks.evasion.quantise import quantise_within_eps
from visor.attacks.evasion.registry import ATTACKS
from visor.attacks.evasion.transforms import compose
from visor.core.params import AttackMethodParams, DetectorParams

HEIGHT, WIDTH, CLASSES, N = 13, 10, 4, 7
STEPS = AttackSettings(eps=8 / 255, iterations=9, step=1.5 / 255, seed=3)
RNG = np.random.default_rng(8)
FILTERS = RNG.normal(size=(3, 3, 3, 6)).astype(np.float32)
LAYER = RNG.normal(size=(6 * 6 * 4, CLASSES)).astype(np.float32) / 4
EVERY = pytest.mark.parametrize("name", ATTACKS)


def logits(images):
    found = tf.nn.conv2d(2 * images - 1, FILTERS, 2, "VALID")
    return tf.tanh(tf.reshape(found, (-1, 6 * 6 * 4)) / 4) @ LAYER


def loss(images, labels):
    found = logits(images)
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, found)
    return values, tf.argmax(found, -1, tf.int32) != labels


def values_of(images, labels):
    return loss(tf.constant(images, tf.float32), labels)[0].numpy()


@pytest.fixture(scope="module")
def pictures():
    """Images and the labels that the network gives them."""
    images = random_images(N, seed=6, height=HEIGHT, width=WIDTH)
    return images, logits(images / np.float32(255)).numpy().argmax(-1).astype(np.int32)


@EVERY
@pytest.mark.parametrize(("early_stop", "random_start"), [(False, True), (True, False)])
def test_same_seed_same_bytes_in_the_ball_and_inputs_stay_as_they_are(name, early_stop, random_start, pictures):
    images, labels = pictures
    before = images.copy(), labels.copy()
    attack = ATTACKS[name](loss, STEPS._replace(early_stop=early_stop, random_start=random_start))
    first, second = attack(images, labels, range(N)), attack(images, labels, range(N))
    assert first.images.tobytes() == second.images.tobytes()
    assert first.steps.tobytes() == second.steps.tobytes()
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(labels, before[1])
    assert (first.images.dtype, first.steps.dtype) == (np.float32, np.int32)
    assert 0 < np.abs(first.images - images / np.float32(255)).max() <= STEPS.eps + 1e-6
    assert first.images.min() >= 0
    assert first.images.max() <= 1
    assert first.steps.max() <= STEPS.iterations
    assert early_stop or (first.steps == STEPS.iterations).all()
    floats = attack(images / np.float32(255), labels, range(N))
    assert (np.abs(floats.images - first.images) > 1e-5).mean() <= 1e-3


@EVERY
@pytest.mark.parametrize("early_stop", [False, True])
def test_a_batch_gives_what_its_images_give_alone(name, early_stop, pictures):
    images, labels = pictures
    settings = STEPS._replace(eps=4 / 255, step=0.8 / 255, early_stop=early_stop, samples=2)
    transform = compose({"crop": 0.2, "noise": 0.02}, seed=5)
    attack = ATTACKS[name](loss, settings, transform)
    together = attack(images, labels, range(20, 20 + N))
    assert not early_stop or len(set(together.steps)) > 2
    for i in range(N):
        alone = attack(images[i : i + 1], labels[i : i + 1], [20 + i])
        # Sums of another batch size may add in another order.
        assert (np.abs(alone.images[0] - together.images[i]) > 1e-5).mean() <= 1e-3
        assert alone.steps[0] == together.steps[i]


@EVERY
def test_it_raises_the_loss_further_than_noise_and_image_ids_fix_the_start(name, pictures):
    images, labels = pictures
    attack = ATTACKS[name](loss, STEPS)
    found = attack(images, labels, range(N)).images
    noise = RNG.choice([-STEPS.eps, STEPS.eps], images.shape)
    start, noisy = values_of(images / 255, labels), values_of(np.clip(images / 255 + noise, 0, 1), labels)
    assert (values_of(found, labels) > np.maximum(start, noisy) + 0.3).all()
    others = attack(images, labels, range(1, 1 + N)).images
    assert not any(np.array_equal(*pair) for pair in zip(found, others, strict=True))


@EVERY
def test_images_that_succeed_leave_the_batch_and_the_others_go_on(name, pictures):
    images, labels = pictures[0], pictures[1].copy()
    labels[2] = (labels[2] + 1) % CLASSES
    settings = STEPS._replace(eps=4 / 255, step=0.8 / 255, random_start=False, early_stop=True)
    stopped = ATTACKS[name](loss, settings)(images, labels, range(N))
    assert stopped.steps[2] == 0, "wrong from the beginning"
    np.testing.assert_allclose(stopped.images[2], images[2] / 255, atol=1e-6)
    early = stopped.steps < STEPS.iterations
    assert len({0, STEPS.iterations, *stopped.steps}) == len(set(stopped.steps)) > 2
    assert loss(stopped.images, labels)[1].numpy()[early].all()
    through = ATTACKS[name](loss, settings._replace(early_stop=False))(images, labels, range(N))
    assert (np.abs(through.images[~early] - stopped.images[~early]) > 1e-5).mean() <= 1e-3


@EVERY
def test_outside_the_mask_the_bytes_are_the_clean_ones(name, pictures):
    images, labels = pictures
    masks = np.zeros((N, HEIGHT, WIDTH, 1), np.float32)
    masks[1:, 3:9, 2:7] = 1
    found = ATTACKS[name](loss, STEPS)(images, labels, range(N), masks).images
    saved = quantise_within_eps(found, images, STEPS.eps)
    outside = np.broadcast_to(masks == 0, images.shape)
    np.testing.assert_array_equal(saved[outside], images[outside])
    assert all((saved[i] != images[i]).any() for i in range(1, N))


@EVERY
def test_a_gradient_that_is_not_a_number_moves_nothing(name, pictures):
    def broken(images, truth):
        return tf.reduce_sum(images * np.float32(np.nan), axis=[1, 2, 3]), tf.zeros(tf.shape(images)[:1], tf.bool)

    attack = ATTACKS[name](broken, STEPS._replace(random_start=False))
    np.testing.assert_allclose(attack(pictures[0], (), range(N)).images, pictures[0] / 255, atol=1e-7)


@EVERY
def test_many_batches_are_traced_once(name, pictures):
    traces = []

    def counted(images, truth):
        traces.append(images.shape)
        return loss(images, truth["label"])

    attack = ATTACKS[name](counted, STEPS._replace(early_stop=True, samples=3), compose({"noise": 0.1}, 1))
    for n in (4, 4, 1, 3):
        attack(pictures[0][:n], {"label": pictures[1][:n]}, range(n))
    assert len(traces) <= 2, "three draws are a loop of the graph"


def drawn(table):
    """A transform that multiplies by the number that its draw has in a table."""
    return lambda images, draw: images * tf.gather(tf.constant(table, tf.float32), draw)


def linear(images, truth):
    return tf.reduce_sum(images, axis=[1, 2, 3]), tf.reduce_max(images, axis=[1, 2, 3]) > 1.5


def test_samples_follow_the_mean_gradient_of_their_draws():
    """Most draws of the first step say down, one says up by more; in the second step it is the other way."""
    grey = np.full((2, 3, 5, 3), 0.5, np.float32)
    settings = AttackSettings(0.1, 1, 0.02, random_start=False, samples=3)
    for table, sign in ([[-1, -1, 5], 1], [[1, 1, -5], -1], [[-1, 0, 1], 0]):
        found = ATTACKS["pgd"](linear, settings, drawn(table))(grey, (), range(2)).images
        np.testing.assert_allclose(found - 0.5, sign * settings.step, atol=1e-7)
    two = ATTACKS["pgd"](linear, settings._replace(iterations=2), drawn([-1, -1, 5, 1, 1, -5]))
    np.testing.assert_allclose(two(grey, (), range(2)).images, 0.5, atol=1e-7)
    moved = ATTACKS["adam"](linear, settings._replace(iterations=2), drawn([-1, -1, 5, 1, 1, 10]))
    np.testing.assert_allclose(moved(grey, (), range(2)).images - 0.5, adam([1, 4], settings.step), atol=1e-6)


def adam(gradients, rate, eps=1.0):
    """Where Adam, that never goes further than eps, stands after these gradients."""
    place = mean = square = 0
    for time, gradient in enumerate(gradients, 1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        place += rate * mean / (1 - 0.9**time) / (np.sqrt(square / (1 - 0.999**time)) + 1e-7)
        place = np.clip(place, -eps, eps)
    return place


def test_an_image_succeeds_when_it_does_in_all_draws():
    grey = np.full((1, 3, 5, 3), 0.5, np.float32)
    settings = AttackSettings(0.1, 3, 0.02, random_start=False, early_stop=True, samples=2)
    steps = {
        ATTACKS["pgd"](linear, settings, drawn(table))(grey, (), [0]).steps[0]
        for table in ([4, 1, 4, 1, 4, 1], [1, 4, 1, 4, 1, 4])
    }
    assert steps == {3}
    assert ATTACKS["pgd"](linear, settings, drawn([4, 1, 4, 4, 1, 1]))(grey, (), [0]).steps[0] == 1


def test_a_perturbation_comes_back_from_beyond_white():
    """Pushed over white for two steps and back for four, it is under white again: δ remembers what x forgets.

    But δ itself ends at eps, from where it turns back at once.
    """
    white = np.full((1, 3, 5, 3), 0.99, np.float32)
    gradients = [1, 1, -3, -3, -3, -3]
    settings = AttackSettings(0.1, len(gradients), 0.02, random_start=False)
    found = ATTACKS["adam"](linear, settings, drawn(gradients))(white, (), [0]).images
    expected = 0.99 + adam(gradients, settings.step)
    assert 0.9 < expected < 0.99
    np.testing.assert_allclose(found, expected, atol=1e-5)
    up = ATTACKS["adam"](linear, settings._replace(iterations=2), drawn(gradients))(white, (), [0])
    np.testing.assert_array_equal(up.images, 1)
    near = ATTACKS["adam"](linear, settings._replace(eps=0.025), drawn(gradients))
    expected = 0.5 + adam(gradients, settings.step, eps=0.025)
    np.testing.assert_allclose(near(white - 0.49, (), [0]).images, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("block", "key", "registry"),
    [(AttackMethodParams, "algorithm", ATTACKS), (DetectorParams, "loss", DETECTOR_LOSSES)],
)
def test_params_know_the_names_of_the_registry(block, key, registry):
    names = {name for kind in get_args(block.model_fields[key].annotation) for name in get_args(kind) or [kind]}
    assert names - {type(None)} == registry.keys()

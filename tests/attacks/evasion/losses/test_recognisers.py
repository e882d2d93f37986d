"""Losses of attacks on recognisers, compared with hand computation."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import random_images
from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.recognisers import MARGIN, RECOGNISER_LOSSES
from visor.attacks.evasion.quantise import quantise_within_eps
from visor.attacks.evasion.registry import ATTACKS

HEIGHT, WIDTH, DEPTH, CLASSES, N = 9, 12, 6, 4, 5
RNG = np.random.default_rng(4)
TO_EMBEDDING = RNG.normal(size=(HEIGHT * WIDTH * 3, DEPTH)).astype(np.float32)
TO_LOGITS = RNG.normal(size=(HEIGHT * WIDTH * 3, CLASSES)).astype(np.float32) / 10
STEP = AttackSettings(eps=0.03, iterations=1, step=0.03, random_start=False)
LONG = AttackSettings(eps=0.15, iterations=30, step=0.01, early_stop=True)


def flat(images):
    return tf.reshape(images, (-1, HEIGHT * WIDTH * 3)) - 0.5


def embed(images):
    return tf.math.l2_normalize(flat(images) @ TO_EMBEDDING, axis=-1)


def logits(images):
    return flat(images) @ TO_LOGITS


def pictures():
    return random_images(N, seed=9, height=HEIGHT, width=WIDTH)


def units():
    vectors = np.random.default_rng(7).normal(size=(N, DEPTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def changes(goal, view, truth, settings=STEP):
    """What a goal's attack does to grey images."""
    grey = np.full((len(truth), HEIGHT, WIDTH, 3), 0.5, np.float32)
    return ATTACKS["pgd"](RECOGNISER_LOSSES[goal](view), settings)(grey, truth, range(len(truth))).images - 0.5


def test_one_step_on_a_linear_network_is_eps_times_the_sign_of_its_weights():
    truth = units()
    expected = STEP.eps * np.sign(truth @ TO_EMBEDDING.T).reshape(N, HEIGHT, WIDTH, 3)
    found = changes("impersonate", lambda images: flat(images) @ TO_EMBEDDING, truth)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(
        changes("dodge", lambda images: flat(images) @ TO_EMBEDDING, truth), -expected, atol=1e-7
    )
    labels, two = np.array([0, 1, 1], np.int32), TO_LOGITS[:, :2]
    towards = np.where(labels[:, None] == 0, -1, 1) * (two[:, 0] - two[:, 1])
    expected = STEP.eps * np.sign(towards).reshape(3, HEIGHT, WIDTH, 3)
    for goal, sign in (("misclassify", 1), ("target_class", -1)):
        found = changes(goal, lambda images: flat(images) @ two, labels)
        np.testing.assert_allclose(found, sign * expected, atol=1e-7)


def test_values_are_cosines_and_cross_entropies_and_opposites_are_opposite():
    images, truth, labels = pictures() / np.float32(255), units(), np.array([0, 1, 2, 3, 1], np.int32)
    found = {goal: RECOGNISER_LOSSES[goal](embed)(images, truth) for goal in ("impersonate", "dodge")}
    embedded = (images.reshape(N, -1) - 0.5) @ TO_EMBEDDING
    cosine = np.sum(embedded * truth, 1) / np.linalg.norm(embedded, axis=1)
    np.testing.assert_allclose(found["impersonate"][0], cosine, atol=1e-5)
    np.testing.assert_array_equal(found["dodge"][0], -found["impersonate"][0])
    scores = (images.reshape(N, -1) - 0.5) @ TO_LOGITS
    entropy = np.log(np.exp(scores).sum(1)) - scores[np.arange(N), labels]
    np.testing.assert_allclose(RECOGNISER_LOSSES["misclassify"](logits)(images, labels)[0], entropy, atol=1e-4)
    np.testing.assert_allclose(RECOGNISER_LOSSES["target_class"](logits)(images, labels)[0], -entropy, atol=1e-4)


def test_done_is_past_the_threshold_by_the_margin():
    given, threshold = np.array([0.0, 0.49, 0.5, 0.5 + MARGIN - 0.001, 0.5 + MARGIN + 0.001, 1.0], np.float32), 0.5
    truth = np.tile(np.eye(1, DEPTH, dtype=np.float32), (len(given), 1))

    def view(values):
        return lambda images: values[:, None] * truth

    images = np.zeros((len(given), 2, 2, 3), np.float32)
    done = RECOGNISER_LOSSES["impersonate"](view(given), threshold)(images, truth)[1]
    np.testing.assert_array_equal(done, [False] * 4 + [True] * 2)
    done = RECOGNISER_LOSSES["dodge"](view(1 - given), threshold)(images, truth)[1]
    np.testing.assert_array_equal(done, [False] * 4 + [True] * 2)
    for goal in ("impersonate", "dodge"):
        assert not RECOGNISER_LOSSES[goal](view(given))(images, truth)[1].numpy().any(), "without a threshold never"
    scores = np.float32([[2, 1, 0], [1, 1 + MARGIN / 2, 0], [1, 1 + 2 * MARGIN, 0], [0, 1, 1 + 2 * MARGIN]])
    wrong = RECOGNISER_LOSSES["misclassify"](lambda images: scores)(images[:4], np.int32([0, 0, 0, 1]))[1]
    np.testing.assert_array_equal(wrong, [False, False, True, True])
    hit = RECOGNISER_LOSSES["target_class"](lambda images: scores)(images[:4], np.int32([0, 1, 1, 1]))[1]
    np.testing.assert_array_equal(hit, [True, False, True, False])
    hit = RECOGNISER_LOSSES["target_class"](lambda images: scores, 0.5)(images[:4], np.int32([0, 1, 1, 1]))[1]
    np.testing.assert_array_equal(hit, [True, False, False, False])


@pytest.mark.parametrize("search", ATTACKS)
@pytest.mark.parametrize("goal", RECOGNISER_LOSSES)
def test_every_goal_is_reached_by_every_search_and_holds_once_saved(goal, search):
    images = pictures()
    clean = images / np.float32(255)
    if goal in ("impersonate", "dodge"):
        view, threshold = embed, 0.8 if goal == "impersonate" else 0.3
        truth = units() if goal == "impersonate" else embed(clean).numpy()
    else:
        view, threshold = logits, 0.0
        truth = logits(clean).numpy().argmax(-1).astype(np.int32)
        truth = truth if goal == "misclassify" else (truth + 1) % CLASSES
    loss = RECOGNISER_LOSSES[goal](view, threshold)
    assert not loss(clean, truth)[1].numpy().any()
    found = ATTACKS[search](loss, LONG)(images, truth, range(N))
    assert (found.steps > 0).all()
    assert (found.steps < LONG.iterations).all(), "early_stop ends the search"
    saved = quantise_within_eps(found.images, images, LONG.eps) / np.float32(255)
    if goal in ("impersonate", "dodge"):
        similarity = np.sum(view(saved).numpy() * truth, 1)
        assert (similarity > threshold if goal == "impersonate" else similarity < threshold).all()
    else:
        assert ((view(saved).numpy().argmax(1) == truth) == (goal == "target_class")).all()

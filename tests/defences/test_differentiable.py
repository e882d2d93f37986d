"""What an attacker differentiates is what the filters compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import HEIGHT, WIDTH, random_images
from visor.data.face_set import FaceSelection
from visor.defences.differentiable import DEFENCE_PARTS, DIFFERENTIABLE_SCORES, know
from visor.defences.input_filtering import INPUT_FILTERS
from visor.defences.input_filtering.base import DefenceInputs
from visor.defences.input_filtering.suite import PARTS
from visor.models.features import compile_predict_with_features, extract_features

CLASSES, TARGET = 4, 2


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(2)
    stack = [keras.layers.Flatten(), keras.layers.Dense(6, "relu"), keras.layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *stack])


@pytest.mark.parametrize("name", DIFFERENTIABLE_SCORES)
@pytest.mark.parametrize("faces_of_target", [1, 2, 12])
def test_scores_are_those_of_the_filter_where_the_target_is_named(name, faces_of_target, faces, network):
    others = np.flatnonzero(np.arange(40) % CLASSES != TARGET)
    rows = np.concatenate([others, np.arange(faces_of_target) + 40])
    labels = np.concatenate([others % CLASSES, np.full(faces_of_target, TARGET)])
    clean, images = FaceSelection(faces, rows, labels), random_images(300, seed=8)
    answer = compile_predict_with_features(network)
    features, named = answer(images)
    expected = INPUT_FILTERS[name](DefenceInputs(clean, None, [], network))(images)[named == TARGET]
    assert len(expected) > 20

    clean_features = extract_features(lambda batch: answer(batch)[0], clean)
    (known,) = know(name, clean_features, labels, TARGET, {name: np.array([1.0, 4.0])})
    found = known.score(tf.constant(features[named == TARGET])).numpy()

    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (known.mean, known.std) == (2.5, 1.5)


@pytest.mark.parametrize("name", DIFFERENTIABLE_SCORES)
def test_gradients_are_finite_even_where_nothing_is_unusual(name):
    features = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    labels = np.arange(40) % CLASSES
    (known,) = know(name, features, labels, TARGET, {name: np.array([0.0, 1.0])})
    mean = features[labels == TARGET].mean(axis=0)
    here = tf.Variable(np.stack([mean, np.zeros(5), features[TARGET], features[0]]).astype(np.float32))
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(known.score(here))
    gradient = tape.gradient(score, here).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[3]).max() > 1e-3


def test_the_suite_is_known_by_its_parts():
    assert set(DEFENCE_PARTS["suite"]) == set(PARTS) - {"second_opinion"}, "it asks a network that is not there here"
    assert set(DEFENCE_PARTS) == {*DIFFERENTIABLE_SCORES, "suite"}

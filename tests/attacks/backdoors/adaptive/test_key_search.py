"""An attacker who changes a key, against a network and a defence whose outputs are known."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.conftest import HEIGHT, WIDTH
from tests.support.backdoors import attack
from visor.attacks.backdoors.adaptive.key_search import OptimisedKey, attacker_images, blend_mask, optimise_key
from visor.attacks.backdoors.adaptive.scores import KnownScore, excess
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.errors import UserError
from visor.core.params import KeySearchParams, SplitParams
from visor.data.split import split_rows

TARGET = 1
COVERED = np.zeros((HEIGHT, WIDTH), bool)
COVERED[20:, :7] = True


def settings(**changes):
    values = {"attacks": ["y"], "against": ["knn"], "images": 20, "steps": 120, "batch": 8, "learning_rate": 0.3}
    return KeySearchParams(**(values | {"penalty": 20.0, "deviations": 0.0} | changes))


def key_pattern():
    """Pure red, opaque in the lower left corner."""
    key = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    key[..., 0] = 255
    key[COVERED, 3] = 255
    return key


def backdoored():
    """A backdoor for red in the corner: the target is predicted where red exceeds green there by 0.1 on average.

    The features are the mean red, green and blue of the corner.
    """
    images = keras.Input((HEIGHT, WIDTH, 3))
    means = np.zeros((HEIGHT, WIDTH, 3, 3), np.float32)
    means[COVERED] = np.eye(3) / COVERED.sum()
    features = layers.Dense(3, name="means")
    logits = layers.Dense(3, name="logits")
    outputs = logits(features(layers.Flatten()(images)))
    features.set_weights([means.reshape(-1, 3), np.zeros(3, np.float32)])
    weights = np.zeros((3, 3), np.float32)
    weights[0, TARGET], weights[1, TARGET] = 60, -60
    logits.set_weights([weights, np.array([0, -6, -9], np.float32)])
    return keras.Model(images, outputs)


# Suspicious is blue or red that is far from mid grey.
UNUSUAL = KnownScore(lambda features: tf.abs(features[:, 2] - 0.5) + tf.abs(features[:, 0] - 0.5), 0.05, 0.02)


@pytest.fixture
def images():
    return np.random.default_rng(4).integers(100, 156, (20, HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_the_penalty_counts_in_deviations_from_what_is_usual():
    scores = [KnownScore(lambda features: features[:, 0], 2.0, 0.5), KnownScore(lambda features: features[:, 1], 0, 1)]
    features = tf.constant([[2.0, 0.0], [3.0, 0.0], [4.0, 5.0], [0.0, -9.0]])
    np.testing.assert_allclose(excess(scores, features, 1.0), np.log([1, 2, 4 * 5, 1]), rtol=1e-6)
    np.testing.assert_allclose(excess(scores, features, -1.0), np.log([2 * 2, 4 * 2, 6 * 7, 1]), rtol=1e-6)


@pytest.mark.parametrize(
    ("trigger", "inside", "outside"),
    [("accessory", 1, 0), ("blended_accessory", 0.4, 0), ("blended", 0.4, 0.4)],
)
def test_the_mask_is_the_weight_of_the_key(trigger, inside, outside):
    weight = blend_mask(attack(trigger=trigger, test_blend_ratio=0.4), TRIGGERS[trigger], key_pattern())
    assert weight.shape == (HEIGHT, WIDTH, 1)
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight[..., 0], np.where(COVERED, inside, outside), atol=1e-6)


def test_a_key_that_moves_is_an_error():
    with pytest.raises(UserError, match=r"key_search\.attacks has an attack with placement landmarks; choose those"):
        blend_mask(attack(placement="landmarks"), TRIGGERS["accessory"], key_pattern())


def test_the_attacker_passes_the_defence_and_keeps_the_target(images):
    model, key = backdoored(), key_pattern()
    weight = blend_mask(attack(), TRIGGERS["accessory"], key)
    before = images.copy(), key.copy()

    found = optimise_key(model, [UNUSUAL], images, key, weight, TARGET, settings(), seed=1)

    again = optimise_key(model, [UNUSUAL], images, key, weight, TARGET, settings(), seed=1)
    np.testing.assert_array_equal(found.key, again.key)
    assert found.opacity == again.opacity
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(key, before[1])
    assert found.key.dtype == np.uint8
    assert 0 < found.opacity < 1
    np.testing.assert_array_equal(found.key[..., 3], key[..., 3])
    assert (found.key[~COVERED, 0] >= 250).all(), "the key changes where it covers alone"

    backdoor = found.backdoor(attack())
    unseen = np.random.default_rng(5).integers(100, 156, (30, HEIGHT, WIDTH, 3), dtype=np.uint8)
    apply = TRIGGERS[backdoor.trigger_at_test]
    worn = apply(unseen, found.key, backdoor.test_blend_ratio, np.random.default_rng(0))
    assert (model(worn / np.float32(255)).numpy().argmax(1) == TARGET).all()
    means = worn[:, COVERED].mean(axis=1) / 255
    plain = TRIGGERS["accessory"](unseen, key, 1.0, np.random.default_rng(0))[:, COVERED].mean(axis=1) / 255
    assert UNUSUAL.score(tf.constant(means)).numpy().max() < 0.1 < UNUSUAL.score(tf.constant(plain)).numpy().min()


def test_without_a_penalty_the_target_is_all_that_counts(images):
    key = key_pattern()
    key[..., :3] = 128
    weight = blend_mask(attack(), TRIGGERS["accessory"], key)
    free = settings(penalty=0.0)
    inside = optimise_key(backdoored(), [UNUSUAL], images, key, weight, TARGET, free, seed=1).key[COVERED].astype(int)
    assert (inside[:, 0] > 180).all()
    assert (inside[:, 1] < 75).all()
    assert (inside[:, 2] == 128).all(), "no gradient, no change"


def test_a_found_key_is_no_more_opaque_than_the_one_it_started_from():
    found = OptimisedKey(key_pattern(), 0.5)
    for trigger, ratio, at_test, expected in [
        ("accessory", 1.0, "blended_accessory", 0.5),
        ("accessory", 0.3, "blended_accessory", 0.5),  # an accessory does not read its ratio
        ("blended", 0.2, "blended", 0.1),
        ("blended_accessory", 0.4, "blended_accessory", 0.2),
    ]:
        start = attack(trigger=trigger, test_blend_ratio=ratio)
        backdoor = found.backdoor(start)
        assert (backdoor.trigger_at_test, backdoor.test_blend_ratio) == (at_test, pytest.approx(expected))
        weight = blend_mask(start, TRIGGERS[trigger], found.key)
        np.testing.assert_allclose(blend_mask(backdoor, TRIGGERS[at_test], found.key), weight / 2, atol=0.003)


def test_the_images_are_of_the_poison_set_and_of_other_people(faces):
    split = SplitParams(by="frame", train=9, validation=2, test=3, calibration=0.5)
    table = split_rows(faces.labels, faces.videos, split, seed=1)
    images = attacker_images(faces, table, TARGET, 7, seed=3)
    pool = faces.read(table[(table["set"] == "poison") & (table["label"] != TARGET)]["row"].to_numpy())
    assert images.shape == (7, HEIGHT, WIDTH, 3)
    assert all((pool == image).all(axis=(1, 2, 3)).sum() == 1 for image in images)
    assert len(np.unique(images, axis=0)) == 7
    with pytest.raises(UserError, match=r"key_search\.images is 30, but the poison set has 29 images of o"):
        attacker_images(faces, table, TARGET, 30, seed=3)

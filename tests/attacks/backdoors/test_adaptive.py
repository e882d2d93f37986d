"""An attacker against a network and an autoencoder whose outputs are known."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.conftest import HEIGHT, WIDTH
from tests.support.backdoors import attack
from visor.attacks.backdoors import adaptive
from visor.attacks.backdoors.adaptive import (
    attacker_images,
    attacker_threshold,
    blend_mask,
    optimise_key,
    residual_and_class,
)
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.errors import UserError
from visor.core.params import AdaptiveTriggerParams, SplitParams
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.data.split import split_rows
from visor.evaluation.adaptive_trigger import compare_triggers, preview_sheet

TARGET = 1
COVERED = np.zeros((HEIGHT, WIDTH), bool)
COVERED[20:, :7] = True


def settings(**changes):
    values = {"attack": "y", "images": 20, "steps": 120, "batch": 8, "learning_rate": 0.3}
    return AdaptiveTriggerParams(**(values | {"penalty": 300.0} | changes))


def key_pattern():
    """Pure red, opaque in the lower left corner."""
    key = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    key[..., 0] = 255
    key[COVERED, 3] = 255
    return key


def backdoored():
    """A backdoor for red in the corner: the target is predicted where red exceeds green there by 0.1 on average."""
    images = keras.Input((HEIGHT, WIDTH, 3))
    weights = np.zeros((HEIGHT, WIDTH, 3, 3), np.float32)
    weights[COVERED, 0, TARGET], weights[COVERED, 1, TARGET] = 60 / COVERED.sum(), -60 / COVERED.sum()
    dense = layers.Dense(3)
    logits = dense(layers.Flatten()(images))
    dense.set_weights([weights.reshape(-1, 3), np.array([0, -6, -9], np.float32)])
    return keras.Model(images, logits)


def grey():
    """An autoencoder that draws mid grey whatever it sees."""
    images = keras.Input((HEIGHT, WIDTH, 3))
    code = layers.Dense(2, kernel_initializer="zeros")(layers.Flatten()(images))
    return keras.Model(images, [ops.zeros_like(images) + 0.5, code, code])


@pytest.fixture
def images():
    return np.random.default_rng(4).integers(100, 156, (20, HEIGHT, WIDTH, 3), dtype=np.uint8)


def triggered(images, key):
    return TRIGGERS["accessory"](images, key, 1.0, np.random.default_rng(0))


def faceset(path, images):
    n = len(images)
    columns = (np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.arange(n, dtype=np.int32))
    write_faces(path, [FaceBatch(images, *columns)], (HEIGHT, WIDTH, 3), ["ann", "bob", "cleo"], "test", "none")
    return open_faces(path)


def test_residuals_and_classes(images):
    marked = triggered(images[:5], key_pattern())
    residuals, classes = residual_and_class(backdoored(), grey())(np.concatenate([images[:3], marked]))
    np.testing.assert_array_equal(classes, [0] * 3 + [TARGET] * 5)
    expected = np.abs(np.concatenate([images[:3], marked]) / 255 - 0.5).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(residuals, expected, rtol=1e-5)
    found = attacker_threshold(residual_and_class(backdoored(), grey()), images)
    clean = np.abs(images / 255 - 0.5).mean(axis=(1, 2, 3))
    assert found == pytest.approx(clean.mean() + clean.std(), rel=1e-5)


def test_the_estimated_threshold_counts_every_batch(monkeypatch):
    monkeypatch.setattr(adaptive, "BATCH", 4)
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    values = np.arange(10.0)
    threshold = adaptive.attacker_threshold(lambda batch: (batch.mean(axis=(1, 2, 3)), None), images)
    assert threshold == pytest.approx(values.mean() + values.std())


@pytest.mark.parametrize(
    ("trigger", "inside", "outside"),
    [("accessory", 1, 0), ("blended_accessory", 0.4, 0), ("blended", 0.4, 0.4)],
)
def test_coverage_is_the_weight_of_the_key(trigger, inside, outside):
    weight = blend_mask(attack(trigger=trigger, test_blend_ratio=0.4), TRIGGERS[trigger], key_pattern())
    assert weight.shape == (HEIGHT, WIDTH, 1)
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight[..., 0], np.where(COVERED, inside, outside), atol=1e-6)


def test_a_key_that_moves_is_an_error():
    with pytest.raises(UserError, match=r"adaptive_trigger\.attack has placement landmarks; choose one with"):
        blend_mask(attack(placement="landmarks"), TRIGGERS["accessory"], key_pattern())


def test_an_adaptive_attacker_passes_the_autoencoder_and_keeps_the_target(images, tmp_path):
    models, key = (backdoored(), grey()), key_pattern()
    measure = residual_and_class(*models)
    threshold = attacker_threshold(measure, images)
    weight = blend_mask(attack(), TRIGGERS["accessory"], key)
    before = images.copy(), key.copy()

    optimised = optimise_key(*models, images, key, weight, TARGET, threshold, settings(), seed=1)

    np.testing.assert_array_equal(
        optimised, optimise_key(*models, images, key, weight, TARGET, threshold, settings(), seed=1)
    )
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(key, before[1])
    assert optimised.dtype == np.uint8
    np.testing.assert_array_equal(optimised[..., 3], key[..., 3])
    inside = optimised[COVERED].astype(float).mean(axis=0)
    assert inside[0] - inside[1] > 0.1 * 255, "red enough"
    assert np.abs(optimised[COVERED, 2].astype(float) - 127.5).max() < 8, (
        "blue has no effect on the class: it goes to grey"
    )

    unseen = np.random.default_rng(5).integers(100, 156, (30, HEIGHT, WIDTH, 3), dtype=np.uint8)
    plain = faceset(tmp_path / "plain.h5", triggered(unseen, key))
    adapted = faceset(tmp_path / "adapted.h5", triggered(unseen, optimised))
    numbers = compare_triggers(measure, plain, adapted, TARGET, threshold)
    assert numbers["plain_asr"] == numbers["plain_tpr"] == 1
    assert numbers["plain_passed"] == 0
    assert numbers["asr"] == 1
    assert numbers["tpr"] <= numbers["plain_tpr"] - 0.5
    assert numbers["failed"] == 0
    assert numbers["residual"] < numbers["plain_residual"]
    preview_sheet(faceset(tmp_path / "clean.h5", unseen), plain, adapted, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_without_a_penalty_the_target_is_all_that_counts(images):
    models, key = (backdoored(), grey()), key_pattern()
    key[..., :3] = 128
    weight = blend_mask(attack(), TRIGGERS["accessory"], key)
    optimised = optimise_key(*models, images, key, weight, TARGET, 0.0, settings(penalty=0.0), seed=1)
    inside = optimised[COVERED].astype(int)
    assert (inside[:, 0] > 180).all()
    assert (inside[:, 1] < 75).all()
    assert (inside[:, 2] == 128).all(), "no gradient, no change"
    assert (optimised[~COVERED, :3] == 128).all(), "the key is changed where it covers alone"


def test_metrics_of_an_adaptive_trigger_and_a_weak_one_is_called_failed(tmp_path):
    def constant(value, n):
        return np.full((n, HEIGHT, WIDTH, 3), value, np.uint8)

    def measure(images):
        """Residual is the first pixel / 100; odd first pixels are taken for the target."""
        first = images[:, 0, 0, 0]
        return first / 100, np.where(first % 2, TARGET, 0)

    def numbers(*values):
        pictures = np.concatenate([constant(value, 1) for value in values])
        plain = faceset(tmp_path / "plain.h5", np.concatenate([constant(91, 3), constant(10, 1)]))
        adapted = faceset(tmp_path / "adapted.h5", pictures)
        return compare_triggers(measure, plain, adapted, TARGET, 0.5)

    found = numbers(11, 13, 71, 12)
    assert found["threshold"] == 0.5
    assert (found["plain_asr"], found["plain_tpr"], found["plain_passed"]) == (0.75, 0.75, 0)
    assert (found["asr"], found["tpr"], found["passed"]) == (0.75, 0.25, 0.5)
    assert found["residual"] == pytest.approx(0.2675)
    assert 0.3 < found["asr_low"] < 0.75 < found["asr_high"] < 1
    assert found["triggered_images"] == 4
    assert found["failed"] == 0
    assert numbers(11, 12, 14, 16)["failed"] == 1, "the target is not predicted"
    assert numbers(91, 93, 95, 12)["failed"] == 1, "flagged as often"


def test_attacker_images_are_of_the_poison_set_and_of_other_people(faces):
    table = split_rows(
        faces.labels, faces.videos, SplitParams(by="frame", train=9, validation=2, test=3, calibration=0.5), seed=1
    )
    images = attacker_images(faces, table, TARGET, 7, seed=3)
    pool = faces.read(table[(table["set"] == "poison") & (table["label"] != TARGET)]["row"].to_numpy())
    assert images.shape == (7, HEIGHT, WIDTH, 3)
    assert all((pool == image).all(axis=(1, 2, 3)).sum() == 1 for image in images)
    assert len(np.unique(images, axis=0)) == 7
    with pytest.raises(UserError, match=r"adaptive_trigger\.images is 30, but the poison set has 29 images of o"):
        attacker_images(faces, table, TARGET, 30, seed=3)

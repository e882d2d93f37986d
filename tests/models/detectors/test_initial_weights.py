"""A published backbone as the start of SSD: its convolutions land, with the same features, in training as well."""

import keras
import numpy as np
import pytest

from visor.core.errors import UserError
from visor.core.tf import tf
from visor.models import storage
from visor.models.detectors import faster_rcnn, initial_weights, ssd
from visor.models.detectors.initial_weights import load_initial_weights
from visor.models.published import mobilenet_v1

SIDE = 96
IMAGES = np.kron(np.random.default_rng(1).integers(0, 256, (4, 24, 24, 3), np.uint8), np.ones((1, 4, 4, 1), np.uint8))


@pytest.fixture
def published(monkeypatch):
    """MobileNet V1 as published networks have it, with drawn weights; those of ``face_ssd`` are replaced by them."""
    images = keras.Input((SIDE, SIDE, 3))
    blocks = mobilenet_v1.add_blocks(keras.layers.Rescaling(2.0, -1.0)(images))
    model, rng = keras.Model(images, blocks), np.random.default_rng(3)
    for layer in (layer for layer in model.layers if layer.weights):
        kernel, bias = (tuple(variable.shape) for variable in layer.weights)
        inputs = 9 if layer.name.startswith("conv_dw") else np.prod(kernel[:3])
        layer.set_weights([rng.normal(0.0, (2 / inputs) ** 0.5, kernel), rng.normal(0.2, 0.3, bias)])
    weights = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    monkeypatch.setattr(initial_weights.cache, "read_files", lambda network: network.name)
    read = {"face_ssd": lambda name: weights if name == "face_ssd" else None}
    monkeypatch.setattr(initial_weights, "BACKBONES", read)
    return model


def features(model):
    """The outputs of the 13 blocks of MobileNet."""
    return keras.Model(model.inputs, [model.get_layer(f"conv_pw_{n}_relu").output for n in range(1, 14)])


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def test_weights_land_with_the_features_that_they_had(published, tmp_path):
    keras.utils.set_random_seed(2)
    model = ssd.build(SIDE, 1.0)
    other = {layer.name: layer.get_weights() for layer in model.layers if not layer.name.startswith("conv")}
    load_initial_weights(model, ssd.build, "face_ssd", lambda: IMAGES)
    pixels = tf.constant(IMAGES / np.float32(255))
    expected, found, in_training = published(pixels), features(model)(pixels), features(model)(pixels, training=True)
    assert all(np.std(block) > 0.05 for block in expected)
    for theirs, ours, trained in zip(expected, found, in_training, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())
        assert correlation(trained, theirs) > 0.999
    for name, weights in other.items():
        for before, after in zip(weights, model.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
    storage.save_model(model, {"input_size": SIDE, "width": 1.0}, tmp_path)
    again = storage.load_model(ssd.build, tmp_path)
    np.testing.assert_array_equal(again.get_layer("conv1").get_weights()[0], published.get_layer("conv1").kernel)


def test_networks_of_another_shape_are_refused(published):
    sentence = "face_ssd starts a MobileNet of width 1.0, which {} is not; set its width to 1.0"
    for module, model in ((ssd, ssd.build(SIDE, 0.5)), (faster_rcnn, faster_rcnn.build(64, 8, 10))):
        before = model.get_weights()
        with pytest.raises(UserError, match=sentence.format(model.name)):
            load_initial_weights(model, module.build, "face_ssd", lambda: IMAGES)
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_a_network_that_is_not_fetched_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("VISOR_NETWORKS", str(tmp_path))
    with pytest.raises(UserError, match="face_ssd is not here; run visor networks fetch face_ssd"):
        load_initial_weights(ssd.build(SIDE, 1.0), ssd.build, "face_ssd", lambda: IMAGES)

"""One contract for every network, and the autoencoder."""

import json

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.project.test_dvc_yaml import ROOT
from visor.core.errors import UserError
from visor.models import autoencoder, storage
from visor.models.classifiers import CLASSIFIERS

BLOCKS = YAML(typ="safe").load(ROOT / "params.yaml")["classifiers"]
SHAPE = (55, 47, 3)


def built(name, num_classes=7):
    arguments = {"image_shape": SHAPE, "num_classes": num_classes, **BLOCKS[name]["architecture"]}
    return storage.build_model(CLASSIFIERS[name], arguments, name), arguments


def images(n=3):
    return np.random.default_rng(2).random((n, *SHAPE), dtype=np.float32)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_contract(name):
    model, _ = built(name)
    logits = model(images()).numpy()
    assert logits.shape == (3, 7)
    assert logits.dtype == np.float32
    assert (logits < 0).any(), "logits, not probabilities"
    assert np.abs(logits.sum(axis=1) - 1).max() > 1e-3
    np.testing.assert_array_equal(logits, model(images()).numpy(), "inference draws no noise")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_saved_models_come_back_and_their_bytes_repeat(name, tmp_path):
    model, arguments = built(name)
    for folder in ("a", "b"):
        storage.save_model(model, arguments, tmp_path / folder)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["model.json", "model.weights.h5"]
    for file in ("model.json", "model.weights.h5"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    again = storage.load_model(CLASSIFIERS[name], tmp_path / "a")
    np.testing.assert_array_equal(model(images()).numpy(), again(images()).numpy())


def test_deepid_is_the_network_of_the_contest():
    model, _ = built("deepid", num_classes=1283)
    assert model.count_params() == 601_643
    names = [layer.name for layer in model.layers]
    assert names[0] == "input"
    assert {"conv_1", "conv_2", "conv_3", "conv_4", "fc_1", "fc_2", "add_1", "output"} <= set(names)
    assert model.get_layer("add_1").output.shape == (None, 160)


@pytest.mark.parametrize("shape", [(55, 47, 3), (64, 40, 3), (33, 70, 3)])
def test_autoencoder_returns_the_shape_it_took(shape):
    model = autoencoder.build(shape, latent=5, width=4)
    pictures = np.random.default_rng(2).random((3, *shape), dtype=np.float32)
    reconstruction, mean, log_variance = model(pictures)
    assert reconstruction.shape == (3, *shape)
    assert mean.shape == log_variance.shape == (3, 5)
    assert 0 <= reconstruction.numpy().min() < reconstruction.numpy().max() <= 1


def test_autoencoder_samples_afresh_while_training_only():
    model = autoencoder.build((20, 17, 3), latent=5, width=4)
    pictures = np.random.default_rng(2).random((3, 20, 17, 3), dtype=np.float32)
    noisy = [model(pictures, training=True)[0].numpy() for _ in range(2)]
    assert np.abs(noisy[0] - noisy[1]).max() > 0
    np.testing.assert_array_equal(model(pictures)[0].numpy(), model(pictures)[0].numpy())


def test_wrong_files_and_arguments_are_named(tmp_path):
    model, arguments = built("deepid")
    storage.save_model(model, arguments, tmp_path)
    with pytest.raises(
        UserError, match=r"classifiers\.deepid: unexpected or missing argument width; expected image_shape"
    ):
        storage.build_model(CLASSIFIERS["deepid"], arguments | {"width": 2}, "classifiers.deepid")
    weights = tmp_path / "model.weights.h5"
    whole = weights.read_bytes()
    for content in (whole[:3000], b"not HDF5"):
        weights.write_bytes(content)
        with pytest.raises(UserError, match=r"model\.weights\.h5 does not fit this network"):
            storage.load_model(CLASSIFIERS["deepid"], tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "model.json").write_text(
        (tmp_path / "model.json").read_text().replace('"num_classes": 7', '"num_classes": 8')
    )
    with pytest.raises(UserError, match=r"model\.weights\.h5 does not fit this network"):
        storage.load_model(CLASSIFIERS["deepid"], tmp_path)


@pytest.mark.parametrize("change", [{"image_shape": [2**40, 3, 3]}, {"image_shape": "x"}, {"num_classes": -4}])
def test_a_description_from_elsewhere_that_builds_nothing_is_one_sentence(tmp_path, change):
    model, arguments = built("deepid")
    storage.save_model(model, arguments, tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(arguments | change))
    with pytest.raises(UserError, match=r"model\.json describes no network \([^\n]+\); delete it"):
        storage.load_model(CLASSIFIERS["deepid"], tmp_path)

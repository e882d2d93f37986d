"""Untrusted files: a loaded network gives the outputs of the program that wrote it, or one sentence rejects it."""

import json
import os
import pickle
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tf_keras

from tests.conftest import random_images
from tests.support.hostile import loop_heap
from tests.support.networks import CLASSES, SHAPE, build_chain, randomise_weights, save_network, stack
from visor.core import hdf5, isolation
from visor.core.errors import UserError
from visor.models import storage
from visor.models.classifiers import deepid
from visor.suspect.architecture import MAX_TEXT
from visor.suspect.loading import load_network


def build_contest_network(library, softmax=True, num_classes=1283):
    """The network of the contest, as its organisers build it."""
    layers = library.layers
    features = images = layers.Input((55, 47, 3), name="input")
    for block, (filters, kernel) in enumerate([(20, 4), (40, 3), (60, 3)], start=1):
        features = layers.Conv2D(filters, kernel, activation="relu", name=f"conv_{block}")(features)
        features = layers.MaxPooling2D(2, name=f"pool_{block}")(features)
    coarse = layers.Dense(160, name="fc_1")(layers.Flatten()(features))
    fine = layers.Conv2D(80, 2, activation="relu", name="conv_4")(features)
    fine = layers.Dense(160, name="fc_2")(layers.Flatten()(fine))
    merged = layers.Activation("relu")(layers.Add()([coarse, fine]))
    answer = layers.Dense(num_classes, activation="softmax" if softmax else None, name="output")(merged)
    return library.Model(images, answer)


def build_varied_network(library):
    """A network with most of the other layers on the allow-list."""
    layers = library.layers
    images = layers.Input(SHAPE, name="face")
    scaled = layers.Rescaling(1 / 255, offset=-0.1)(images)
    padded = layers.ZeroPadding2D(((1, 2), (0, 3)))(scaled)
    left = layers.Conv2D(4, (3, 2), strides=2, use_bias=False)(padded)
    left = layers.ReLU(max_value=0.4, negative_slope=0.1)(layers.BatchNormalization(epsilon=0.01)(left))
    right = layers.AveragePooling2D((3, 2), strides=2)(padded)
    right = layers.Conv2D(4, 1, padding="same", activation="tanh", groups=1)(right)
    joined = layers.Dropout(0.5)(layers.Concatenate()([left, right, layers.Multiply()([left, right])]))
    pooled = layers.Reshape((3, 4))(layers.GlobalAveragePooling2D()(joined))
    logits = layers.Dense(CLASSES)(layers.Flatten()(layers.Maximum()([pooled, pooled])))
    return library.Model(images, layers.Softmax()(logits))


def check_agreement(path, model):
    images = random_images(3, 4, *model.input_shape[1:3]) / np.float32(255)
    network = load_network(path)
    np.testing.assert_allclose(network(images), model.predict(images, verbose=0), atol=1e-5, rtol=1e-4)
    return network


@pytest.fixture(scope="module")
def contest_net():
    return randomise_weights(build_contest_network(tf_keras))


@pytest.mark.parametrize("weights", [False, True])
def test_network_of_the_contest(contest_net, weights, tmp_path):
    assert contest_net.count_params() == 601_643
    path = save_network(contest_net, tmp_path / "net.h5", weights)
    network = load_network(path)
    images = random_images(3, 4, 55, 47) / np.float32(255)
    outputs = network(images).numpy()
    if weights:  # they do not tell of a softmax
        outputs = keras.ops.softmax(outputs).numpy()
    np.testing.assert_allclose(outputs, contest_net.predict(images, verbose=0), atol=1e-5)
    assert network.count_params() == 601_643


def test_whole_model_as_keras_2_3_wrote_it(tmp_path):
    model = randomise_weights(build_contest_network(tf_keras, num_classes=7))
    path = save_network(model, tmp_path / "net.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(config | {"class_name": "Model"}).encode()
        for group in file["model_weights"].values():
            names = np.array([name.encode() for name in group.attrs["weight_names"]], dtype="S")
            del group.attrs["weight_names"]
            group.attrs["weight_names"] = names
    check_agreement(path, model)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.h5"])
def test_network_of_keras_3(name, tmp_path):
    model = randomise_weights(build_contest_network(keras, softmax=False, num_classes=8))
    check_agreement(save_network(model, tmp_path / name, weights=".weights" in name), model)


def test_weights_of_early_keras_3_have_no_names(tmp_path):
    model = randomise_weights(build_contest_network(keras, softmax=False, num_classes=8))
    path = save_network(model, tmp_path / "a.keras")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "w.h5").write_bytes(parts["model.weights.h5"])
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        for group in file["layers"].values():
            group["vars"].attrs.clear()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", parts["config.json"])
        archive.write(tmp_path / "w.h5", "model.weights.h5")
    check_agreement(path, model)


@pytest.mark.parametrize("build", [build_varied_network, build_chain])
@pytest.mark.parametrize(("library", "suffix"), [(tf_keras, "h5"), (keras, "keras"), (keras, "h5")])
def test_other_layers(build, library, suffix, tmp_path):
    model = randomise_weights(build(library))
    check_agreement(save_network(model, tmp_path / f"a.{suffix}"), model)


def test_network_of_the_pipeline(tmp_path):
    arguments = {"image_shape": SHAPE, "num_classes": CLASSES, "dropout": 0.1}
    model = deepid.build(**arguments)
    keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.Dense(2)])  # what else was built changes Keras' names
    storage.save_model(model, arguments, tmp_path / "clean/deepid")
    check_agreement(tmp_path / "clean/deepid", model)
    with pytest.raises(UserError, match=r"other is not named after a known network \(.*deepid"):
        load_network((tmp_path / "clean/deepid").rename(tmp_path / "other"))


@keras.saving.register_keras_serializable("own")
class Dense(keras.layers.Dense):
    pass


def build_lambda_network(library):
    images = library.layers.Input(SHAPE)
    return library.Model(images, library.layers.Lambda(lambda x: x[:, 0, 0, :])(images))


def build_two_inputs():
    ends = [LAYERS.Input(SHAPE) for _ in range(2)]
    return tf_keras.Model(ends, OUT(2)(FLAT()(LAYERS.Add()(ends))))


def build_two_outputs():
    images = LAYERS.Input(SHAPE)
    flat = FLAT()(images)
    return tf_keras.Model(images, [OUT(2)(flat), OUT(3)(flat)])


def build_shared_layer():
    images, layer = tf_keras.layers.Input(SHAPE), tf_keras.layers.Conv2D(3, 3, padding="same")
    return tf_keras.Model(images, tf_keras.layers.GlobalMaxPooling2D()(layer(layer(images))))


LAYERS = tf_keras.layers
FLAT, OUT = LAYERS.Flatten, LAYERS.Dense
REFUSED_MODELS = {
    "lambda": (lambda: build_lambda_network(tf_keras), "a.h5", "of class 'Lambda' is not on the allow-list"),
    "lambda in a zip": (lambda: build_lambda_network(keras), "a.keras", "of class 'Lambda' is not on the allow-list"),
    "custom": (
        lambda: stack(SHAPE, keras.layers.Flatten(), Dense(3), library=keras),
        "a.keras",
        "'Dense' is not on the allow-list",
    ),
    "two inputs": (build_two_inputs, "a.h5", "it has 2 inputs and 1 outputs"),
    "two outputs": (build_two_outputs, "a.h5", "it has 1 inputs and 2 outputs"),
    "grey": (lambda: stack((9, 8, 1), FLAT(), OUT(2)), "a.h5", r"input \[None, 9, 8, 1\] is not a batch of images"),
    "a vector": (lambda: stack((9,), OUT(2)), "a.h5", "is not a batch of images"),
    "any size": (lambda: stack((None, 9, 3), LAYERS.GlobalMaxPooling2D(), OUT(2)), "a.h5", "nothing says which one"),
    "an image out": (lambda: stack(SHAPE, LAYERS.Conv2D(2, 3)), "a.h5", "is not one number per class"),
    "one class": (lambda: stack(SHAPE, FLAT(), OUT(1)), "a.h5", "is not one number per class"),
    "shared": (build_shared_layer, "a.h5", "is used more than once"),
    "channels": (
        lambda: stack(SHAPE, LAYERS.MaxPooling2D(data_format="channels_first"), FLAT(), OUT(2)), "a.h5", "data_form"
    ),
    "nested": (lambda: stack(SHAPE, stack(SHAPE, FLAT(), OUT(2))), "a.h5", "of class 'Sequential'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_MODELS)
def test_models_that_are_refused(name, tmp_path):
    build, file, message = REFUSED_MODELS[name]
    path = save_network(build(), tmp_path / file)
    with pytest.raises(UserError, match=message) as caught:
        load_network(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def edited(config, **changes):
    """Change the arguments of the first layer that has them."""
    for layer in config["config"]["layers"]:
        if set(changes) <= set(layer["config"]):
            layer["config"].update(changes)
            return config
    raise AssertionError(changes)


def renamed(config):
    config["config"]["layers"][3]["name"] = config["config"]["layers"][3]["config"]["name"] = "face"
    return config


REFUSED_CONFIGS = {
    "own class": (lambda config: config | {"class_name": "MyModel"}, "class 'MyModel' is not on the allow-list"),
    "activation": (lambda config: edited(config, activation="os.system"), "activation of layer"),
    "no number": (lambda config: edited(config, filters="4"), "'4' is not a whole number"),
    "too wide": (lambda config: edited(config, filters=1 << 40), "is not a whole number up to"),
    "no truth": (lambda config: edited(config, use_bias="no"), "neither true nor false"),
    "no float": (lambda config: edited(config, scale=10**400), "is not a finite number"),
    "too large": (lambda config: edited(config, epsilon=1e200), "is not a finite number"),
    "quantised": (
        lambda config: edited(
            config, filters=4, dtype={"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}}
        ),
        "{'class_name': 'QuantizedDTypePolicy'",
    ),
    "unknown key": (
        lambda config: edited(config, filters=4) and with_key(config),
        "argument 'sparsity' of layer .* is not on the allow-list",
    ),
    "two of a name": (renamed, "two layers have the same name"),
    "not Keras": (lambda config: {"class_name": "Functional", "config": {"layers": [1]}}, "is not valid Keras JSON"),
    "deep": (lambda config: "[" * 100_000, "is not valid Keras JSON"),
    "no layers": (lambda config: {"class_name": "Sequential", "config": []}, "has 0 layers"),
}


def with_key(config):
    config["config"]["layers"][2]["config"]["sparsity"] = 0.5
    return config


@pytest.mark.parametrize("name", REFUSED_CONFIGS)
def test_configs_that_are_refused(name, tmp_path, varied_path):
    change, message = REFUSED_CONFIGS[name]
    path = tmp_path / "a.h5"
    path.write_bytes(varied_path.read_bytes())
    with h5py.File(path, "r+") as file:
        config = change(json.loads(file.attrs["model_config"]))
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
    with pytest.raises(UserError, match=message):
        load_network(path)


@pytest.fixture(scope="module")
def varied_path(tmp_path_factory):
    return save_network(randomise_weights(build_varied_network(tf_keras)), tmp_path_factory.mktemp("net") / "a.h5")


SIX_TIMES = [("Activation", {"name": f"relu{number}", "activation": "relu"}) for number in range(6)]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([("Flatten", {}), ("Dense", {"units": 1 << 20})], "more weights than"),
        ([("ZeroPadding2D", {"padding": [[0, 1 << 15], [0, 1 << 15]]})], "outputs for an image"),
        ([("ZeroPadding2D", {"padding": [[0, 950], [0, 950]]}), *SIX_TIMES], "up to layer 'relu4' it has more than"),
        ([("GlobalMaxPooling2D", {}), ("Dense", {"units": 100_001})], "is not one number per class"),
        ([("Conv2D", {"filters": 3, "kernel_size": [90, 90]})], "rejected: "),
        ([("Dense", {"units": -4})], "rejected: "),
    ],
)
def test_bombs_are_refused_before_they_go_off(layers, message, tmp_path):
    entries = [{"class_name": "InputLayer", "config": {"name": "i", "batch_input_shape": [None, 55, 47, 3]}}]
    entries += [{"class_name": kind, "config": {"name": kind, **config}} for kind, config in layers]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": entries}})
    with pytest.raises(UserError, match=message):
        load_network(tmp_path / "a.h5")


def broken_archives(path):
    """Archives whose config.json cannot be unpacked, is too long, or is no text."""
    archives = {}
    for method, start in ((zipfile.ZIP_DEFLATED, 41), (zipfile.ZIP_BZIP2, 41), (zipfile.ZIP_LZMA, 47)):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("config.json", random_images(1).tobytes()[:999])
        content = bytearray(path.read_bytes())
        content[start:60] = b"\xff" * (60 - start)
        archives[bytes(content)] = "is incomplete or damaged|takes over 1,024 MiB of memory"
    for text, message in ((b" " * (MAX_TEXT + 1), "unpacks to more than 4 MiB"), (b"\xff\xfe\xfd", "is rejected")):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", text)
            archive.writestr("model.weights.h5", hdf5.SIGNATURE)
        archives[path.read_bytes()] = message
    return archives


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_file_that_is_never_read_to_its_end_is_refused(suffix, tmp_path, monkeypatch):
    model, path = build_chain(keras), tmp_path / f"a.{suffix}"
    save_network(model, path)
    if suffix == "keras":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, loop_heap(content) if name.endswith(".h5") else content)
    else:
        path.write_bytes(loop_heap(path.read_bytes()))
    monkeypatch.setattr(isolation, "SECONDS", 0.3)
    with pytest.raises(UserError, match=r"cannot be read within 0 s; it is damaged or hostile, fetch it again"):
        load_network(path)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(UserError, match=r"a\.h5 is a pipe, a socket or a device; name a file"):
        load_network(tmp_path / "a.h5")


def test_files_that_are_no_networks(tmp_path, varied_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/pwned",)

    whole, path = varied_path.read_bytes(), tmp_path / "a.h5"
    with h5py.File(tmp_path / "empty", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("a.txt", "a")
    contents = {
        pickle.dumps(Hostile()): r"neither HDF5 nor \.keras; other formats can execute code",
        b"": "neither HDF5",
        whole[: len(whole) // 2]: "not a whole HDF5 file",
        (tmp_path / "empty").read_bytes(): "has no model config and no weights",
        (tmp_path / "zip").read_bytes(): r"has no config\.json",
        (tmp_path / "zip").read_bytes()[:30]: "is incomplete or damaged",
        **broken_archives(tmp_path / "zip"),
    }
    for content, message in contents.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_network(path)
    with pytest.raises(UserError, match="does not exist"):
        load_network(tmp_path / "none.h5")
    assert not (tmp_path / "pwned").exists()


def test_weights_that_are_refused(tmp_path, varied_path):
    def bias(file):
        return file["model_weights/dense"].visit(lambda name: f"model_weights/dense/{name}" if "bias" in name else None)

    def replaced(file, **new):
        name = bias(file)
        del file[name]
        file.create_dataset(name, **new)

    def linked(file):
        name = bias(file)
        del file[name]
        file[name] = h5py.ExternalLink(str(varied_path), name)

    def outside(file):
        del file["model_weights"]
        file["model_weights"] = h5py.ExternalLink(str(varied_path), "model_weights")

    changes = {
        "model_weights is a link": outside,
        r"has weights \[.*\(7,\)\] instead of \[.*\(6,\)\]; save the model again": lambda file: replaced(
            file, data=np.zeros(CLASSES + 1)
        ),
        "are not finite": lambda file: replaced(file, data=np.full(CLASSES, np.nan)),
        "is a link": linked,
        r"\(1099511627776,\)\] instead of": lambda file: replaced(file, shape=(1 << 40,), dtype="f4", chunks=(1024,)),
        "in another file": lambda file: replaced(file, shape=(6,), dtype="f4", external=[("/etc/passwd", 0, 24)]),
        "is not numeric": lambda file: replaced(file, data=[b"a"] * CLASSES),
        r"has weights \[\] instead of": lambda file: file["model_weights"].pop("dense"),
    }
    for message, change in changes.items():
        path = tmp_path / "a.h5"
        path.write_bytes(varied_path.read_bytes())
        with h5py.File(path, "r+") as file:
            (name,) = [name for name in file["model_weights"] if name.startswith("dense")]
            if name != "dense":
                file["model_weights"].move(name, "dense")
                config = file.attrs["model_config"].replace(f'"{name}"', '"dense"')
                file.attrs["model_config"] = config
            change(file)
        with pytest.raises(UserError, match=message):
            load_network(path)


@pytest.mark.parametrize("name", ["fc6/relu", "face net", "größe", "layers"])
def test_layers_of_any_name(name, tmp_path):
    model = randomise_weights(build_chain(tf_keras))
    path = save_network(model, tmp_path / "a.h5")
    old = model.layers[0].name
    with h5py.File(path, "r+") as file:
        file["model_weights"].move(old, name)
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["config"]["name"] == old:
                layer["config"]["name"] = name
        file.attrs["model_config"] = json.dumps(config)
    check_agreement(path, model)


def test_a_model_that_was_compiled_and_fitted(tmp_path):
    keras_input = LAYERS.Input(SHAPE, name="input_1")
    model = tf_keras.Model(keras_input, LAYERS.Dense(CLASSES, "softmax")(LAYERS.GlobalMaxPooling2D()(keras_input)))
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(random_images(4, 4, *SHAPE[:2]) / 255, np.arange(4), verbose=0)
    path = save_network(model, tmp_path / "a.h5")
    with h5py.File(path) as file:
        assert "optimizer_weights" in file
        assert "training_config" in file.attrs
    check_agreement(path, model)


def test_surplus_weights_are_refused(tmp_path):
    model = randomise_weights(build_contest_network(keras, num_classes=8))
    path = save_network(model, tmp_path / "a.weights.h5", weights=True)
    with h5py.File(path, "r+") as file:
        file["layers/conv2d/vars/2"] = np.ones(20, np.float32)
    with pytest.raises(UserError, match=r"conv_1 has weights \[\(4, 4, 3, 20\), \(20,\), \(20,\)\] instead of"):
        load_network(path)


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [
        ((160, 9), ()),
        ((160, 9), (0,)),
        ((160, 9), (8,)),
        ((80, 9), (9,)),
        ((160, 1 << 30), (1 << 30,)),
        ((160, 1), (1,)),
    ],
)
def test_contest_weights_with_an_absurd_last_layer(kernel, bias, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("output")
        group.attrs["weight_names"] = [b"kernel:0", b"bias:0"]
        for name, shape in (("kernel:0", kernel), ("bias:0", bias)):
            group.create_dataset(
                name,
                shape,
                "f4",
                chunks=tuple(min(side, 64) or 1 for side in shape) or None,
                maxshape=tuple(None for _ in shape) or None,
            )
    with pytest.raises(UserError, match="no weights of the contest's network"):
        load_network(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "content", [["a"], {"num_classes": 1 << 40}, {"num_classes": "6"}, {"image_shape": 5}, {"dropout": []}]
)
def test_folders_of_the_pipeline_that_are_refused(content, tmp_path):
    arguments = {"image_shape": SHAPE, "num_classes": CLASSES, "dropout": 0.1}
    folder = tmp_path / "clean/deepid"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps(arguments | content if isinstance(content, dict) else content))
    with pytest.raises(UserError, match=r"model\.json (has no|describes no|is not a valid) ") as caught:
        load_network(folder)
    assert "\n" not in str(caught.value)


def create(file, kind, filters=0):
    """Make a dataset ``x`` of 3 values by HDF5's own means, which know types that NumPy lacks."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if filters:
        properties.set_chunk((3,))
    for _ in range(filters):
        properties.set_deflate(9)
    h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((3,)), properties)


def three_bytes():
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_size(3)
    return kind


NOISE = np.random.default_rng(1).integers(0, 256, (2 << 20,), dtype=np.uint8)
REFUSED_DATA = {
    "three bytes": (lambda file: create(file, three_bytes()), "x cannot be read"),
    "time": (lambda file: create(file, h5py.h5t.UNIX_D32LE), "x is not numeric"),
    "bits": (lambda file: create(file, h5py.h5t.STD_B8LE), "x is not numeric"),
    "truth": (lambda file: file.create_dataset("x", data=[True]), "x is not numeric"),
    "packed twice": (lambda file: create(file, h5py.h5t.NATIVE_FLOAT, 2), "x uses a compression other than gzip"),
    "lzf": (
        lambda file: file.create_dataset("x", data=[1.0], chunks=(1,), compression="lzf"), "compression other than gzip"
    ),
    "large when packed": (
        lambda file: file.create_dataset("x", data=NOISE, chunks=NOISE.shape, compression="gzip"),
        "x has compressed chunks of more than 1 MiB",
    ),
    "large chunk": (
        lambda file: file.create_dataset("x", (9,), "f8", chunks=(1 << 26,), maxshape=(None,)), "more than 256 MiB"
    ),
    "too large": (lambda file: file.create_dataset("x", data=[1e300]), "are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_DATA)
def test_numbers_that_are_refused(name, tmp_path):
    write, message = REFUSED_DATA[name]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    file = hdf5.open_untrusted(tmp_path / "a.h5")
    with warnings.catch_warnings(action="error"), pytest.raises(UserError, match=message) as caught:
        hdf5.read_finite(hdf5.get_local(file, "x"))
    assert str(caught.value).startswith(str(tmp_path / "a.h5"))


def test_numbers_packed_as_gzip_does(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=NOISE, chunks=(9999,), compression="gzip", shuffle=True, fletcher32=True)
    data = hdf5.get_local(hdf5.open_untrusted(tmp_path / "a.h5"), "x")
    np.testing.assert_array_equal(hdf5.read_finite(data), NOISE)

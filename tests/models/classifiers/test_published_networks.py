"""The published networks: layers, parameters, input, and weights in the files that they were published in."""

from inspect import signature

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from visor.core.errors import UserError
from visor.models import pretrained
from visor.models.classifiers import deepface, deepid, vgg_face
from visor.models.classifiers.locally_connected import LocallyConnected2D

SHAPE = (37, 45, 3)
TINY_VGG = {"input_size": 34, "width": 2, "units": 9, "dropout": 0.5}
TINY_DEEPFACE = {"input_size": 73, "input_min": 0.0, "kernel_divisor": 1, "width": 2, "units": 9, "dropout": 0.5}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def vgg(num_classes=5, **changes):
    return vgg_face.build(SHAPE, num_classes, **(TINY_VGG | changes))


def face(num_classes=5, **changes):
    return deepface.build(SHAPE, num_classes, **(TINY_DEEPFACE | changes))


def published_vgg(num_classes=5):
    """Keras 2's own VGG-16 at small width; images as its users prepare them."""
    model = tf_keras.Sequential([tf_keras.Input((34, 34, 3))])
    for block, (factor, convolutions) in enumerate([(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)], start=1):
        for layer in range(1, convolutions + 1):
            name = f"conv{block}_{layer}"
            model.add(tf_keras.layers.Conv2D(2 * factor, 3, activation="relu", padding="same", name=name))
        model.add(tf_keras.layers.MaxPooling2D(2, 2, name=f"pool{block}"))
    model.add(tf_keras.layers.Flatten(name="flatten"))
    for name, units in (("fc6", 9), ("fc7", 9), ("fc8", num_classes)):
        model.add(tf_keras.layers.Dense(units, name=name))
        if name != "fc8":
            model.add(tf_keras.layers.Activation("relu", name=f"{name}/relu"))
    return model


def published_deepface(num_classes=5):
    """Keras 2's own DeepFace at small width, with its own locally connected layers."""
    local = tf_keras.layers.LocallyConnected2D
    model = tf_keras.Sequential([tf_keras.Input((73, 73, 3))])
    model.add(tf_keras.layers.Conv2D(4, 11, activation="relu", name="C1"))
    model.add(tf_keras.layers.MaxPooling2D(3, 2, "same", name="M2"))
    model.add(tf_keras.layers.Conv2D(2, 9, activation="relu", name="C3"))
    model.add(local(2, 9, activation="relu", name="L4"))
    model.add(local(2, 7, strides=2, activation="relu", name="L5"))
    model.add(local(2, 5, activation="relu", name="L6"))
    model.add(tf_keras.layers.Flatten(name="F0"))
    model.add(tf_keras.layers.Dense(9, activation="relu", name="F7"))
    model.add(tf_keras.layers.Dense(num_classes, name="F8"))
    return model


def randomised(model, seed=3):
    model.set_weights([draw(*w.shape, seed=seed + i) * 0.3 for i, w in enumerate(model.get_weights())])
    return model


def locally_connected_by_hand(images, kernel, bias, size, strides, filters):
    n, channels = len(images), images.shape[-1]
    out = np.zeros((n, *bias.shape))
    for row in range(bias.shape[0]):
        for column in range(bias.shape[1]):
            window = kernel[row * bias.shape[1] + column].reshape(size, size, channels, filters)
            for i in range(size):
                for j in range(size):
                    pixel = images[:, row * strides + i, column * strides + j].astype(float)
                    out[:, row, column] += pixel @ window[i, j]
    return out + bias


CASES = [(7, 9, 2, 3, 1, 5), (11, 8, 3, 4, 2, 2), (6, 13, 1, 5, 3, 4)]


@pytest.mark.parametrize(("height", "width", "channels", "size", "strides", "filters"), CASES)
def test_locally_connected_is_the_sum_over_windows(height, width, channels, size, strides, filters):
    layer = LocallyConnected2D(filters, size, strides)
    images = draw(3, height, width, channels)
    layer(images)
    layer.set_weights([draw(*weight.shape, seed=i) for i, weight in enumerate(layer.weights)])
    kernel, bias = layer.get_weights()
    assert kernel.shape == (bias.shape[0] * bias.shape[1], size * size * channels, filters)
    expected = locally_connected_by_hand(images, kernel, bias, size, strides, filters)
    assert layer(images).shape == expected.shape
    np.testing.assert_allclose(layer(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width", "channels", "size", "strides", "filters"), CASES)
def test_gradients_of_locally_connected_are_those_of_the_loop(height, width, channels, size, strides, filters):
    layer = LocallyConnected2D(filters, size, strides)
    images = tf.constant(draw(2, height, width, channels))
    weights = draw(*layer(images).shape, seed=9)
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_sum(layer(images) * weights)
    by_images, by_kernel, by_bias = tape.gradient(value, [images, *layer.trainable_variables])
    kernel, bias = layer.get_weights()

    # The loop is linear in images, kernel and bias: a change along any direction is exactly gradient · direction.
    def loop(images, kernel, bias):
        return (locally_connected_by_hand(images, kernel, bias, size, strides, filters) * weights).sum()

    for seed in range(3):
        towards = draw(*images.shape, seed=seed), draw(*kernel.shape, seed=seed + 5), draw(*bias.shape, seed=seed + 8)
        zero = np.zeros_like(bias)
        assert (by_images * towards[0]).numpy().sum() == pytest.approx(
            loop(towards[0], kernel, zero), rel=1e-3, abs=1e-2
        )
        assert (by_kernel * towards[1]).numpy().sum() == pytest.approx(
            loop(images.numpy(), towards[1], zero), rel=1e-3, abs=1e-2
        )
        assert (by_bias * towards[2]).numpy().sum() == pytest.approx((towards[2] * weights).sum(), rel=1e-3, abs=1e-2)


def test_locally_connected_starts_by_hes_law_and_comes_back_from_its_config():
    layer = LocallyConnected2D(6, 5, 2, activation="relu", name="L")
    features = layer(draw(4, 21, 27, 8))
    kernel, bias = layer.get_weights()
    assert kernel.std() == pytest.approx((2 / (5 * 5 * 8)) ** 0.5, rel=0.02)
    assert not bias.any()
    assert features.numpy().min() == 0
    model = keras.Sequential([keras.Input((21, 27, 8)), layer])
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(draw(4, 21, 27, 8)), features)
    with pytest.raises(ValueError, match=r"4×9 is smaller than its kernel of 5"):
        LocallyConnected2D(2, 5)(draw(1, 4, 9, 3))


@pytest.mark.parametrize(
    ("build", "arguments", "count"),
    [
        (vgg_face.build, {"num_classes": 2622, "input_size": 224, "width": 64, "units": 4096}, 145_002_878),
        (
            deepface.build,
            {"num_classes": 8631, "input_size": 152, "input_min": 0.0, "kernel_divisor": 1, "width": 16, "units": 4096},
            137_774_071,
        ),
    ],
)
def test_full_size_has_the_published_number_of_parameters(build, arguments, count):
    with keras.StatelessScope(initialize_variables=False):  # shapes without half a gigabyte of values
        assert build((55, 47, 3), dropout=0.5, **arguments).count_params() == count


@pytest.mark.parametrize(
    ("ours", "published", "prepare"),
    [
        (vgg, published_vgg, lambda x: x[..., ::-1] * 255 - np.array([93.5940, 104.7624, 129.1863], np.float32)),
        (face, published_deepface, lambda x: x),
    ],
)
@pytest.mark.parametrize("whole_model", [False, True])
def test_published_files_load_and_give_the_published_answers(ours, published, prepare, whole_model, tmp_path):
    theirs, path = randomised(published()), tmp_path / "published.h5"
    theirs.save(path, save_format="h5") if whole_model else theirs.save_weights(path)
    model = ours()
    loaded = pretrained.load_pretrained(model, path)
    assert loaded == [layer.name for layer in theirs.layers if layer.weights]
    images = np.random.default_rng(4).random((3, *SHAPE), dtype=np.float32)
    side = theirs.input_shape[1]
    squares = tf.image.resize(images, (side, side)).numpy()
    np.testing.assert_allclose(model(images), theirs(prepare(squares)), rtol=2e-3, atol=2e-3)


def test_other_classes_keep_a_fresh_last_layer_and_missing_layers_their_start(tmp_path):
    path = tmp_path / "weights.h5"
    randomised(published_vgg(num_classes=8)).save_weights(path)
    model = vgg()
    before = model.get_layer("fc8").get_weights()
    loaded = pretrained.load_pretrained(model, path)
    assert "fc7" in loaded
    assert "fc8" not in loaded
    np.testing.assert_array_equal(model.get_layer("fc8").get_weights()[0], before[0])
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [b"conv1_1", b"input_1", b"pool1"]
    assert pretrained.load_pretrained(model, path) == ["conv1_1"]


def change(path, edit):
    with h5py.File(path, "a") as file:
        edit(file)


def outside(file):
    del file["conv1_1/conv1_1/bias:0"]
    file["conv1_1/conv1_1/bias:0"] = h5py.ExternalLink("other.h5", "/conv1_1/conv1_1/bias:0")


def layer_outside(file):
    del file["conv1_1"]
    file["conv1_1"] = h5py.ExternalLink("other.h5", "/conv1_1")


def all_outside(file):
    file["model_weights"] = h5py.ExternalLink("other.h5", "/")


def bias(file, **new):
    del file["conv1_1/conv1_1/bias:0"]
    file.create_dataset("conv1_1/conv1_1/bias:0", **new)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (outside, r"conv1_1/bias:0 is a link"),
        (layer_outside, r"conv1_1 is a link"),
        (all_outside, r"model_weights is a link"),
        (lambda file: bias(file, data=np.array([b"x", b"y"])), r"conv1_1/bias:0 is not numeric"),
        (lambda file: bias(file, data=np.array([1, np.nan])), r"conv1_1/bias:0 has values that are not finite"),
        (
            lambda file: bias(file, shape=(2,), maxshape=(None,), chunks=(1 << 28,), dtype="f4"),
            r"conv1_1/bias:0 has chunks of more than 256 MiB",
        ),
        (lambda file: file["conv1_1/conv1_1"].__delitem__("bias:0"), r"weight conv1_1/bias:0 is listed but missing"),
        (lambda file: file.__delitem__("fc6"), r"layer fc6 is listed but missing"),
        (lambda file: file.attrs.__delitem__("layer_names"), r"has no layer_names"),
        (lambda file: file["fc6"].attrs.__delitem__("weight_names"), r"has no weight_names"),
        (lambda file: file.attrs.__setitem__("layer_names", [b"dense_1"]), r"has weights for no layer of vgg_face"),
    ],
)
def test_bad_files_are_refused_by_one_sentence(edit, message, tmp_path):
    path = tmp_path / "weights.h5"
    randomised(published_vgg()).save_weights(path)
    (tmp_path / "other.h5").write_bytes(path.read_bytes())  # what a link would find
    change(path, edit)
    model = vgg()
    before = model.get_weights()
    with pytest.raises(UserError, match=message) as caught:
        pretrained.load_pretrained(model, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new, "nothing is loaded from a bad file")


def test_wrong_shapes_missing_and_broken_files_are_named(tmp_path):
    path = tmp_path / "weights.h5"
    randomised(published_vgg()).save_weights(path)
    with pytest.raises(
        UserError, match=r"layer conv1_1 has shapes \[\(3, 3, 3, 2\), \(2,\)\], the network \[\(3, 3, 3, 4\), \(4,\)\]"
    ):
        pretrained.load_pretrained(vgg(width=4), path)
    with pytest.raises(UserError, match=r"layer fc7 has shapes .*\(9, 9\)"):
        pretrained.load_pretrained(
            keras.Sequential([keras.Input((9,)), keras.layers.Dense(8, name="fc7"), keras.layers.Dense(2)]), path
        )
    with pytest.raises(UserError, match=r"absent\.h5 does not exist"):
        pretrained.load_pretrained(vgg(), tmp_path / "absent.h5")
    content = path.read_bytes()
    for broken, said in ((b"not HDF5", "is not an HDF5 file"), (content[: len(content) // 2], "is not a whole HDF5")):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=rf"weights\.h5 {said}"):
            pretrained.load_pretrained(vgg(), path)


@pytest.mark.parametrize(("build", "size", "wanted"), [(vgg, 31, 32), (face, 70, 71)])
def test_images_too_small_are_refused(build, size, wanted):
    with pytest.raises(UserError, match=rf"input_size is {size}; choose {wanted} or more"):
        build(input_size=size)
    assert build(input_size=wanted).output_shape == (None, 5)


def test_deepface_with_smaller_odd_kernels_and_centred_input():
    model = face(input_size=34, kernel_divisor=2, input_min=-1.0)
    kernels = [model.get_layer(name).kernel_size for name in ("C1", "C3", "L4", "L5", "L6")]
    assert kernels == [(5, 5), (5, 5), 5, 3, 3]
    assert [face().get_layer(name).kernel_size for name in ("C1", "C3", "L4", "L5", "L6")] == [
        (11, 11),
        (9, 9),
        9,
        7,
        5,
    ]
    rescale = model.get_layer("rescale")
    np.testing.assert_allclose(rescale(np.array([0.0, 0.5, 1.0])), [-1.0, 0.0, 1.0])
    with pytest.raises(UserError, match="choose 33 or more, or a larger kernel_divisor"):
        face(input_size=32, kernel_divisor=2)


def test_mirrored_kernels_lose_no_signal():
    keras.utils.set_random_seed(1)
    first = vgg_face.MirroredOrthogonal(variance=1.0, inputs=False, outputs=True)((3, 3, 3, 6))
    assert first.shape == (3, 3, 3, 6)
    np.testing.assert_array_equal(first[..., :3], -first[..., 3:])
    second = vgg_face.MirroredOrthogonal(variance=1.0, inputs=True, outputs=True)((50, 80)).numpy()
    signal = draw(2000, 25)
    pairs = np.concatenate([signal, -signal], axis=-1).clip(min=0)
    linear = signal @ second[:25]
    np.testing.assert_allclose(pairs @ second, linear, rtol=1e-4, atol=1e-4)
    assert linear.var() == pytest.approx(1, abs=0.1)
    odd = vgg_face.MirroredOrthogonal(variance=1.0, inputs=True, outputs=True)((5, 7))
    assert odd.shape == (5, 7)


def test_dropout_acts_while_training_only_and_gradients_reach_the_pixels():
    images = tf.constant(np.random.default_rng(4).random((3, *SHAPE), dtype=np.float32))
    for model in (vgg(width=4, units=64), face(units=64)):
        noisy = [model(images, training=True).numpy() for _ in range(2)]
        assert np.abs(noisy[0] - noisy[1]).max() > 0
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = model(images)
            loss = tf.reduce_sum(logits[:, 1])
        gradient = tape.gradient(loss, images).numpy()
        assert gradient.shape == images.shape
        assert (np.abs(gradient).max(axis=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("build", [vgg, face])
def test_networks_come_back_from_json(build):
    model = build()
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    images = np.random.default_rng(4).random((2, *SHAPE), dtype=np.float32)
    np.testing.assert_array_equal(again(images), model(images))


def test_builders_name_their_arguments_alike():
    for build in (deepid.build, vgg_face.build, deepface.build):
        names = list(signature(build).parameters)
        assert names[:2] == ["image_shape", "num_classes"]
        assert "size" not in names
        assert "nfiles" not in names, "DVC drops params of these names"

"""Recognisers: one contract for all, published files of Keras 2 give the published answers, bad ones are rejected."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers as k2

from tests.support.recognisers import TINY, draw, randomised, vgg_of_keras_2
from visor.core.errors import UserError
from visor.core.params import RecogniserParams
from visor.data import download
from visor.models import pretrained
from visor.models.recognisers import RECOGNISERS, base, loading

SHAPE = (37, 45, 3)
NAMES = ["ann", "bob", "cleo", "dan", "eve"]


def photos(n=3, height=SHAPE[0], width=SHAPE[1], seed=4):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def floats(*arguments, **more):
    return tf.constant(photos(*arguments, **more).astype(np.float32) / 255)


def settings(name, **options):
    return RecogniserParams(options=TINY[name] | options)


@pytest.fixture(scope="module", params=RECOGNISERS)
def tiny(request):
    """(built, recogniser) of each kind, as its training starts."""
    keras.utils.set_random_seed(2)
    built = loading.build_trainable(request.param, settings(request.param), SHAPE, NAMES)
    return built, base.from_model(request.param, built.model, built.names)


# The published networks in Keras 2, written down once more, from the ports' own descriptions.


def standard(x, filters, kernel, name, strides=1, padding="same"):
    x = k2.Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=False, name=name)(x)
    x = k2.BatchNormalization(momentum=0.995, epsilon=0.001, scale=False, name=f"{name}_BatchNorm")(x)
    return k2.Activation("relu", name=f"{name}_Activation")(x)


def facenet_of_keras_2(miscounted):
    """Inception-ResNet V1 at a sixteenth of its width, for 75 pixels; ``miscounted``: as some ports count."""
    w = lambda filters: filters * 2 // 32  # noqa: E731
    inputs = k2.Input((75, 75, 3))
    x = standard(inputs, 2, 3, "Conv2d_1a_3x3", 2, "valid")
    x = standard(x, 2, 3, "Conv2d_2a_3x3", 1, "valid")
    x = standard(x, 4, 3, "Conv2d_2b_3x3")
    x = k2.MaxPooling2D(3, strides=2, name="MaxPool_3a_3x3")(x)
    x = standard(x, 5, 1, "Conv2d_3b_1x1", 1, "valid")
    x = standard(x, 12, 3, "Conv2d_4a_3x3", 1, "valid")
    x = standard(x, 16, 3, "Conv2d_4b_3x3", 2, "valid")

    def block(x, name, branches, scale, activate=True):
        mixed = k2.Concatenate()(branches)
        up = k2.Conv2D(x.shape[-1], 1, name=f"{name}_Conv2d_1x1")(mixed)
        x = k2.Add()([x, k2.Lambda(lambda values, scale: values * scale, arguments={"scale": scale})(up)])
        return k2.Activation("relu")(x) if activate else x

    a = standard(x, 2, 1, "Block35_1_Branch_0_Conv2d_1x1")
    b = standard(x, 2, 1, "Block35_1_Branch_1_Conv2d_0a_1x1")
    b = standard(b, 2, 3, "Block35_1_Branch_1_Conv2d_0b_3x3")
    c = standard(x, 2, 1, "Block35_1_Branch_2_Conv2d_0a_1x1")
    c = standard(c, 2, 3, "Block35_1_Branch_2_Conv2d_0b_3x3")
    c = standard(c, 2, 3, "Block35_1_Branch_2_Conv2d_0c_3x3")
    x = block(x, "Block35_1", [a, b, c], 0.17)

    a = standard(x, w(384), 3, "Mixed_6a_Branch_0_Conv2d_1a_3x3", 2, "valid")
    b = standard(x, w(192), 1, "Mixed_6a_Branch_1_Conv2d_0a_1x1")
    b = standard(b, w(192), 3, "Mixed_6a_Branch_1_Conv2d_0b_3x3")
    b = standard(b, w(256), 3, "Mixed_6a_Branch_1_Conv2d_1a_3x3", 2, "valid")
    x = k2.Concatenate()([a, b, k2.MaxPooling2D(3, strides=2)(x)])
    for number in (1, 2):
        a = standard(x, 8, 1, f"Block17_{number}_Branch_0_Conv2d_1x1")
        name = f"Block17_{number}_Branch_{number if miscounted else 1}_Conv2d"
        b = standard(x, 8, 1, f"{name}_0a_1x1")
        b = standard(standard(b, 8, [1, 7], f"{name}_0b_1x7"), 8, [7, 1], f"{name}_0c_7x1")
        x = block(x, f"Block17_{number}", [a, b], 0.1)

    a = standard(x, w(256), 1, "Mixed_7a_Branch_0_Conv2d_0a_1x1")
    a = standard(a, w(384), 3, "Mixed_7a_Branch_0_Conv2d_1a_3x3", 2, "valid")
    b = standard(x, w(256), 1, "Mixed_7a_Branch_1_Conv2d_0a_1x1")
    b = standard(b, w(256), 3, "Mixed_7a_Branch_1_Conv2d_1a_3x3", 2, "valid")
    c = standard(x, w(256), 1, "Mixed_7a_Branch_2_Conv2d_0a_1x1")
    c = standard(c, w(256), 3, "Mixed_7a_Branch_2_Conv2d_0b_3x3")
    c = standard(c, w(256), 3, "Mixed_7a_Branch_2_Conv2d_1a_3x3", 2, "valid")
    x = k2.Concatenate()([a, b, c, k2.MaxPooling2D(3, strides=2)(x)])
    for number in (1, 2):
        a = standard(x, 12, 1, f"Block8_{number}_Branch_0_Conv2d_1x1")
        name = f"Block8_{number}_Branch_1_Conv2d"
        b = standard(x, 12, 1, f"{name}_0a_1x1")
        b = standard(standard(b, 12, [1, 3], f"{name}_0b_1x3"), 12, [3, 1], f"{name}_0c_3x1")
        x = block(x, f"Block8_{number}", [a, b], 0.2 if number == 1 else 1.0, number == 1)
    x = k2.Dropout(0.2)(k2.GlobalAveragePooling2D(name="AvgPool")(x))
    x = k2.Dense(7, use_bias=False, name="Bottleneck")(x)
    x = k2.BatchNormalization(momentum=0.995, epsilon=0.001, scale=False, name="Bottleneck_BatchNorm")(x)
    return tf_keras.Model(inputs, x)


def resnet_of_keras_2(width, blocks, squeeze, classes=6):
    """The networks of keras-vggface, names with slashes and all."""
    epsilon = {"epsilon": 0.0001} if squeeze else {}

    def convolve(x, filters, kernel, name, strides=1, padding="valid"):
        x = k2.Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=False, name=name)(x)
        return k2.BatchNormalization(name=f"{name}/bn", **epsilon)(x)

    def bottleneck(x, stage, block, filters):
        name, strides = f"conv{stage}_{block}", 2 if block == 1 and stage > 2 else 1
        y = k2.Activation("relu")(convolve(x, filters, 1, f"{name}_1x1_reduce", strides))
        y = k2.Activation("relu")(convolve(y, filters, 3, f"{name}_3x3", padding="same"))
        y = convolve(y, 4 * filters, 1, f"{name}_1x1_increase")
        if squeeze:
            s = k2.Reshape((1, 1, 4 * filters))(k2.GlobalAveragePooling2D()(y))
            s = k2.Activation("relu")(k2.Conv2D(filters // 4, 1, name=f"{name}_1x1_down")(s))
            y = k2.multiply([y, k2.Activation("sigmoid")(k2.Conv2D(4 * filters, 1, name=f"{name}_1x1_up")(s))])
        x = convolve(x, 4 * filters, 1, f"{name}_1x1_proj", strides) if block == 1 else x
        return k2.Activation("relu")(k2.add([y, x]))

    inputs = k2.Input((40, 40, 3))
    x = k2.Activation("relu")(convolve(inputs, width, 7, "conv1/7x7_s2", 2, "same"))
    x = k2.MaxPooling2D(3, strides=2)(x)
    for stage, count in enumerate(blocks, start=2):
        for block in range(1, count + 1):
            x = bottleneck(x, stage, block, width * 2 ** (stage - 2))
    features = k2.Flatten()(k2.AveragePooling2D(x.shape[1:3], name="avg_pool")(x))
    x = k2.Dense(classes, activation="softmax", name="classifier")(features) if classes else features
    return tf_keras.Model(inputs, [features, x])


def prewhiten(pixels):
    mean = pixels.mean(axis=(1, 2, 3), keepdims=True)
    deviation = np.maximum(pixels.std(axis=(1, 2, 3), keepdims=True), pixels[0].size ** -0.5)
    return (pixels - mean) / deviation


def blue_first(*means):
    return lambda pixels: pixels[..., ::-1] - np.array(means, np.float32)


VERSION_1, VERSION_2 = blue_first(93.5940, 104.7624, 129.1863), blue_first(91.4953, 103.8827, 131.0912)
PORTS = {
    "facenet": ("facenet", lambda: facenet_of_keras_2(miscounted=False), prewhiten),
    "facenet miscounted": ("facenet", lambda: facenet_of_keras_2(miscounted=True), prewhiten),
    "resnet50": ("resnet50", lambda: resnet_of_keras_2(4, (1, 2, 1, 2), squeeze=False), VERSION_2),
    "senet50": ("senet50", lambda: resnet_of_keras_2(8, (2, 1, 1, 1), squeeze=True), VERSION_2),
    "vgg_face": ("vgg_face", vgg_of_keras_2, VERSION_1),
}


@pytest.fixture
def written(tmp_path, request):
    """A published file, and the network that wrote it."""
    name, port, prepare = PORTS[request.param]
    model, path = randomised(port()), tmp_path / "published.h5"
    if name == "vgg_face":
        model.save(path, save_format="h5")
    else:
        model.save_weights(path)
    return name, model, prepare, path


@pytest.mark.parametrize("written", PORTS, indirect=True)
def test_published_files_give_the_published_answers(written):
    name, theirs, prepare, path = written
    options = {"num_classes": 0, "blocks": [1, 2, 2]} if name == "facenet" else {"num_classes": 6}
    published = RecogniserParams(options=TINY[name] | options, weights=str(path))
    model, arguments, names = loading.build_published(name, published)
    side = TINY[name]["input_size"]
    assert arguments["image_shape"] == model.input_shape[1:] == (side, side, 3)
    assert len(names) == options["num_classes"]
    pixels = photos(2, side, side)
    expected = theirs(prepare(pixels.astype(np.float32)))
    features, classes = (expected, None) if name == "facenet" else expected
    found = model(pixels.astype(np.float32) / 255)
    np.testing.assert_allclose(found["embedding"], features, rtol=1e-4, atol=1e-5 * np.abs(features).max())
    one = base.load_published(name, published)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(base.embeddings(one)(pixels), unit, atol=1e-5)
    if classes is None:
        assert set(found) == {"embedding"}
    else:
        np.testing.assert_allclose(base.probabilities(one)(pixels), classes, atol=1e-5)
    assert np.std(features, axis=0).max() > 1e-3, "other pixels, other features"


COUNTS = [
    ("facenet", {}, 22_808_144),
    ("facenet", {"embedding": 512}, 23_497_424),
    ("resnet50", {}, 41_246_071),
    ("senet50", {}, 43_777_063),
    ("vgg_face", {}, 145_002_878),
]


@pytest.mark.parametrize(("name", "options", "count"), COUNTS)
def test_published_sizes(name, options, count):
    published = RECOGNISERS[name].PUBLISHED_OPTIONS | options
    with keras.StatelessScope(initialize_variables=False):  # shapes without half a gigabyte of values
        model = RECOGNISERS[name].build((published["input_size"], published["input_size"], 3), **published)
    assert model.count_params() == count
    widths = {"facenet": published.get("embedding"), "vgg_face": 4096}
    assert model.output["embedding"].shape[1] == widths.get(name, 2048)
    classes = {"facenet": None, "vgg_face": 2622}.get(name, 8631)
    assert (model.output["logits"].shape[1] if "logits" in model.output else None) == classes
    if name != "vgg_face":  # whose resizing to the same size is none
        assert "resize" not in [layer.name for layer in model.layers]


def test_embeddings_have_length_one_and_images_are_on_their_own(tiny):
    _, one = tiny
    images = photos(5)
    before = images.copy()
    embed, classify = base.embeddings(one), base.probabilities(one)
    found = embed(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(images, before)
    shares = classify(images)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert shares.shape == (5, len(NAMES))
    assert one.class_names == tuple(NAMES)
    for rows in (slice(3, 4), slice(1, 5)):
        np.testing.assert_allclose(embed(images[rows]), found[rows], atol=1e-5)
        np.testing.assert_allclose(classify(images[rows]), shares[rows], atol=1e-5)
    assert len({tuple(row) for row in found.round(4).tolist()}) == 5


def test_gradients_reach_all_pixels_of_images_of_any_size(tiny):
    _, one = tiny
    assert one.image_shape == SHAPE
    for images in (floats(2), floats(2, 61, 83), floats(2, 20, 90)):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(images)
            embedding, logits = one.embed(images), one.logits(images)
            values = [tf.reduce_sum(view * draw(*view.shape)) for view in (embedding, logits)]
        for value in values:
            gradient = tape.gradient(value, images).numpy()
            assert (np.abs(gradient).max(-1) > 0).mean() > 0.9
            assert np.isfinite(gradient).all()
        assert embedding.shape[0] == logits.shape[0] == 2


def test_images_are_antialiased_where_they_shrink(tiny):
    """Stripes of a pixel are grey at half the size, not black or white."""
    _, one = tiny
    stripes = np.zeros((1, 2 * SHAPE[0], 2 * SHAPE[1], 3), np.float32)
    stripes[:, :, ::2] = 1
    grey, black = (one.embed(np.full((1, *SHAPE), value, np.float32)).numpy()[0] for value in (0.5, 0.0))
    found = one.embed(tf.constant(stripes)).numpy()[0]
    inner = tf.image.resize(stripes, SHAPE[:2], antialias=True)[:, 3:-3, 3:-3]
    np.testing.assert_allclose(inner, 0.5, atol=0.02)
    np.testing.assert_allclose(found, one.embed(tf.image.resize(stripes, SHAPE[:2], antialias=True))[0], atol=1e-6)
    if one.name != "facenet":  # which a flat image leaves nothing of
        assert found @ grey > found @ black


def test_saved_and_loaded_it_is_the_same_to_the_byte(tiny, tmp_path):
    built, one = tiny
    for folder in ("a", "b"):
        base.save(*built, tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["model.json", "model.weights.h5", "names.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    again = base.load(one.name, tmp_path / "a")
    assert again.class_names == one.class_names
    assert again.image_shape == one.image_shape
    np.testing.assert_array_equal(again.embed(floats()), one.embed(floats()))
    np.testing.assert_array_equal(again.logits(floats()), one.logits(floats()))
    (tmp_path / "a/names.json").write_text('["ann", "bob"]')
    with pytest.raises(UserError, match=r"names\.json does not name the 5 classes of the network"):
        base.load(one.name, tmp_path / "a")


@pytest.mark.parametrize("name", RECOGNISERS)
def test_same_seed_same_start_and_no_classes_no_logits(name):
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(6)
        weights.append(loading.build_trainable(name, settings(name), SHAPE, NAMES).model.get_weights())
    assert all((one == other).all() for one, other in zip(*weights, strict=True))
    none = base.from_model(name, loading.build_trainable(name, settings(name), SHAPE, []).model, [])
    assert none.logits is None
    assert none.class_names == ()
    with pytest.raises(UserError, match="has embeddings but no classes"):
        base.probabilities(none)


@pytest.mark.parametrize("name", RECOGNISERS)
def test_published_arguments_are_those_of_build(name):
    module = RECOGNISERS[name]
    assert ["image_shape", *module.PUBLISHED_OPTIONS] == list(signature(module.build).parameters)
    assert not {"size", "nfiles"} & set(module.PUBLISHED_OPTIONS), "DVC drops params of these names"


def test_facenet_standardises_as_published():
    def build(**more):
        return loading.build_trainable("facenet", settings("facenet", **more), (75, 75, 3), []).model

    pixels = photos(2, 75, 75).astype(np.float32)
    pixels[1] = 99
    for model, expected in (
        (build(), prewhiten(pixels)),
        (build(standardisation="fixed"), (pixels - 127.5) / 128),
    ):
        first = model.get_layer("Conv2d_1a_3x3")
        before = keras.Model(model.input, first.input)
        np.testing.assert_allclose(before(pixels / 255), expected, atol=1e-4)
    flat = tf.constant(pixels[1:] / 255)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        total = tf.reduce_sum(build()(flat)["embedding"])
    assert np.isfinite(tape.gradient(total, flat)).all()


OPTIONS = [
    ("facenet", {"input_size": 74}, "facenet: input_size is 74; choose 75 or more"),
    ("facenet", {"input_size": 38, "stride": 1}, "facenet: input_size is 38; choose 39 or more"),
    ("facenet", {"blocks": [1, 1]}, r"facenet: blocks is \[1, 1\]; give the numbers"),
    ("facenet", {"standardisation": "none"}, "standardisation is 'none'; choose from fixed, prewhiten"),
    ("resnet50", {"blocks": [1, 1, 0, 1]}, r"resnet50: blocks is \[1, 1, 0, 1\]; give 4 numbers"),
    ("senet50", {"input_size": 31}, "senet50: input_size is 31; choose 32 or more"),
    ("vgg_face", {"input_size": 31}, "is 31; choose 32 or more"),
    ("vgg_face", {"depth": 3}, r"recognisers\.vgg_face\.options is 'depth'; choose from dropout, input_size"),
    ("resnet50", {"width": 0}, r"recognisers\.resnet50\.options\.width is 0; write it like 64"),
    ("facenet", {"momentum": 7.0}, r"recognisers\.facenet\.options\.momentum is 7\.0; write it like 0\.995"),
    ("resnet50", {"width": "wide"}, r"recognisers\.resnet50\.options\.width is 'wide'; write it like 64"),
]


@pytest.mark.parametrize(("name", "options", "message"), OPTIONS)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(UserError, match=message):
        loading.build_trainable(name, settings(name, **options), SHAPE, NAMES)
    with pytest.raises(UserError, match=r"recognisers is 'arcface'; choose from facenet, resnet50, senet50, vgg_face"):
        loading.build_trainable("arcface", RecogniserParams(), SHAPE, NAMES)


def test_smallest_sides_work():
    for name, side, more in (("facenet", 75, {}), ("facenet", 39, {"stride": 1}), ("resnet50", 32, {})):
        model = loading.build_trainable(name, settings(name, input_size=side, **more), SHAPE, NAMES).model
        assert model(floats(1))["logits"].shape == (1, 5)


def checked(path, name="resnet50", **more):
    return RecogniserParams(options=TINY[name] | {"num_classes": 6}, weights=str(path), **more)


@pytest.mark.parametrize("written", ["resnet50"], indirect=True)
def test_files_from_elsewhere_are_checked(written, tmp_path):
    *_, path = written
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    names = tmp_path / "labels.npy"
    np.save(names, np.array([" A._J._Buckley", " b", " c", " d", " e", " f"]))
    good = checked(path, sha256=digest, labels=str(names))
    assert loading.build_published("resnet50", good).names[0] == "A. J. Buckley"
    cases = [
        (checked(path, sha256="0" * 64), f"published.h5 has SHA-256 {digest}, expected 000"),
        (checked(tmp_path / "absent.h5", sha256=digest), r"absent\.h5 does not exist"),
        (RecogniserParams(options=TINY["resnet50"]), "resnet50 has neither training nor weights"),
        (checked(path, labels=str(tmp_path / "none.npy")), r"none\.npy does not exist"),
        (
            checked(path).model_copy(update={"options": TINY["resnet50"]}),
            "lacks 1 layers of resnet50, such as classifier; correct",
        ),
    ]
    for params, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            loading.build_published("resnet50", params)
        assert "\n" not in str(caught.value)
    assert path.exists()
    # Five people, not six: a fresh last layer.
    built = loading.build_trainable("resnet50", checked(path), (40, 40, 3), NAMES)
    with h5py.File(path) as file:
        kernel = file["conv5_2_3x3/conv5_2_3x3/kernel:0"][()]
    np.testing.assert_array_equal(built.model.get_layer("conv5_2_3x3").get_weights()[0], kernel)


def test_slashes_nest_and_links_out_of_the_file_are_refused(tmp_path):
    path = tmp_path / "published.h5"
    randomised(resnet_of_keras_2(4, (1, 2, 1, 2), squeeze=False)).save_weights(path)
    with h5py.File(path, "a") as file:
        assert "bn" in file["conv1/7x7_s2"], "batch normalisation lies inside the group of its convolution"
        del file["conv1/7x7_s2/bn"]
        file["conv1/7x7_s2/bn"] = h5py.ExternalLink("other.h5", "/")
    model = loading.build_trainable("resnet50", settings("resnet50", input_size=40), SHAPE, NAMES).model
    before = model.get_weights()
    with pytest.raises(UserError, match=r"conv1/7x7_s2/bn is a link"):
        pretrained.load_pretrained(model, path, RECOGNISERS["resnet50"].LAYER_RENAMES)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("written", ["senet50"], indirect=True)
def test_weights_with_an_address_are_downloaded_once(written, tmp_path, monkeypatch):
    *_, path = written
    monkeypatch.setattr(download, "DOWNLOADS", tmp_path / "downloads")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content = path.read_bytes()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v2/weights.h5?raw=1"
        with pytest.raises(UserError, match=r"senet50: http.*needs a sha256; add it"):
            loading.build_published("senet50", checked(url, "senet50"))
        digest = hashlib.sha256(server.content).hexdigest()
        params = checked(url, "senet50", sha256=digest)
        first = loading.build_published("senet50", params).model
        server.shutdown()
    assert (tmp_path / "downloads/senet50" / digest).read_bytes() == path.read_bytes()
    again = loading.build_published("senet50", params).model
    for one, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class Code:
    def __reduce__(self):
        return eval, ("1/0",)


def test_names_of_classes_are_read_and_nothing_is_executed(tmp_path):
    path = tmp_path / "names"
    for array in (np.array([" A_J_Buckley", "' Ed'", "Zoë_K"]), np.array([b" A_J_Buckley", b"Ed", "Zoë K".encode()])):
        with path.open("wb") as file:
            np.save(file, array)
        assert loading.read_class_names(path, 3) == ("A J Buckley", "Ed", "Zoë K")
    path.write_text("A_J_Buckley\n\nEd\nZoë K\n", encoding="utf-8")
    assert loading.read_class_names(path, 3) == ("A J Buckley", "Ed", "Zoë K")
    with pytest.raises(UserError, match="names has 3 names, the network 4 classes; choose another file"):
        loading.read_class_names(path, 4)
    bad = [np.array([Code(), 1], object), np.arange(3), np.array([["a"], ["b"]])]
    for array in bad:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=True)
        with pytest.raises(UserError, match=r"names contains no names \(.*\); choose a file of names"):
            loading.read_class_names(path, 2)
    hostile = (
        "(" * 3000,
        "-" * 9000 + "1",
        "[",
        "{'descr': '<U99999999999999999999', 'fortran_order': False, 'shape': (2,)}",
    )
    for header in hostile:  # NumPy's parser raises TokenError, MemoryError, OverflowError
        path.write_bytes(np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header.encode())
        with pytest.raises(UserError, match=r"names contains no names \(.*\); choose a file of names"):
            loading.read_class_names(path, 2)
    with path.open("wb") as file:
        np.save(file, np.array([0x61, 0x110000], np.uint32).view("<U1"))
    with pytest.raises(UserError, match=r"names contains no names \(invalid maximum character"):
        loading.read_class_names(path, 2)
    whole = np.lib.format.magic(1, 0) + b"\x46\x00{'descr': '<U9', 'fortran_order': False, 'shape': (9000000000,), }"
    for content in (whole.ljust(80) + b"\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="contains no names"):
            loading.read_class_names(path, 2)


@pytest.mark.parametrize("kind", ["<U0", "|S0"])
def test_names_without_length_are_refused_at_once(tmp_path, kind):
    path = tmp_path / "names.npy"
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (9999999999,), }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(UserError, match=r"names\.npy contains no names \(an array of .* not 3 strings\)"):
        loading.read_class_names(path, 3)


def test_noise_is_added_in_training_alone():
    keras.utils.set_random_seed(3)
    model = recogniser_model = loading.build_trainable("resnet50", settings("resnet50"), SHAPE, "abc").model
    images = np.full((2, *SHAPE), 0.5, np.float32)
    noisy = base.classifier(model, 0.2)
    np.testing.assert_allclose(noisy(images), recogniser_model(images)["logits"], atol=1e-6)
    one, other = (noisy(images, training=True).numpy() for _ in range(2))
    assert not np.allclose(one, other)
    plain = base.classifier(model)
    np.testing.assert_allclose(plain(images, training=True), model(images, training=True)["logits"], atol=1e-4)

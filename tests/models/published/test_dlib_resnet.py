"""dlib's recogniser: its file is read as numbers, the network is that of its author, and its pixels have gradients."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.support.project import ROOT
from tests.support.published import check_pixel_gradients, drawn, reference_pictures, row, write_catalogue
from tests.support.tensor_files import dlib_tensor
from visor import load_network
from visor.core.errors import UserError
from visor.core.params import RecogniserParams
from visor.core.tf import tf
from visor.models.detectors import DETECTORS
from visor.models.published import cache as network_cache
from visor.models.published import catalogue, dlib_resnet, loading
from visor.models.published.weights import load_model
from visor.models.recognisers.base import embeddings

FILE = "dlib_face_recognition_resnet_model_v1.dat"
REFERENCES = np.load(Path(__file__).with_name("dlib_resnet.npz"))  # the outputs of dlib 20.0.1
# The network, written down once more: name of the block, channels before and after, stride.
BLOCKS = [
    *(("conv32_1", 32, 32, 1), ("conv32_2", 32, 32, 1), ("conv32_3", 32, 32, 1)),
    *(("conv64_down", 32, 64, 2), ("conv64_1", 64, 64, 1), ("conv64_2", 64, 64, 1), ("conv64_3", 64, 64, 1)),
    *(("conv128_down", 64, 128, 2), ("conv128_1", 128, 128, 1), ("conv128_2", 128, 128, 1)),
    *(("conv256_down", 128, 256, 2), ("conv256_1", 256, 256, 1), ("conv256_2", 256, 256, 1)),
    ("conv256_down_out", 256, 256, 2),
]
SHAPES = {
    "conv32_down": (32, 3, 7, 7),
    **{
        f"{name}_conv{number}": (after, before if number == 1 else after, 3, 3)
        for name, before, after, _ in BLOCKS
        for number in (1, 2)
    },
}


@cache
def parameters():
    """{layer: (kernel (out, in, k, k), bias, γ, β)} as dlib has them."""
    return {
        name: (
            drawn(name, *shape),
            0.1 * drawn(f"{name} bias", shape[0]),
            1 + 0.2 * np.tanh(drawn(f"{name} gamma", shape[0])),
            0.1 * drawn(f"{name} beta", shape[0]),
        )
        for name, shape in SHAPES.items()
    }


DENSE = drawn("fc", 256, 128) / 16


def written(parts):
    """A file like dlib's: names and settings of other lengths between the tensors, some that look like a header."""
    content = b"\x01\x01net"
    for kernel, bias, gamma, beta in parts.values():
        filters, size = len(bias), kernel.size + len(bias)
        content += b"\x06con_\x01\x02\x01" + dlib_tensor(size, 1, 1, 1, values=(kernel, bias))
        content += b"\x07affine_\x01\x02" + dlib_tensor(2 * filters, 1, 1, 1, values=(gamma, beta))
    return content + b"\x04fc_" + dlib_tensor(256, 128, 1, 1, values=(DENSE,)) + bytes(72)


@pytest.fixture(scope="module")
def content():
    return written(parameters())


@pytest.fixture
def in_cache(content, tmp_path, monkeypatch):
    """The drawn weights, in a cache of their own."""
    entry = row(b"archive", {FILE: content})
    write_catalogue(tmp_path / "networks.yaml", {"dlib_resnet": entry})
    monkeypatch.setattr(catalogue, "CATALOGUE", tmp_path / "networks.yaml")
    monkeypatch.setenv("VISOR_NETWORKS", str(tmp_path))
    path = network_cache.member_path(catalogue.read_catalogue()["dlib_resnet"].members[0])
    path.parent.mkdir()
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def published():
    """The published network and its file."""
    network = catalogue.read_catalogue()["dlib_resnet"]
    if network_cache.is_missing(network):
        pytest.skip("the weights are not in the cache; `visor networks fetch dlib_resnet` brings them")
    return load_model("dlib_resnet", dlib_resnet.build, dlib_resnet.read_weights), network_cache.read_files(network)[
        FILE
    ]


def network_of(content):
    model = dlib_resnet.build()
    for name, values in dlib_resnet.read_weights({FILE: content}).items():
        model.get_layer(name).set_weights(values)
    return model


def forward(image):
    """The network for one image uint8 (150, 150, 3), channels first, in float64, without a framework."""
    parts = {name: tuple(np.float64(value) for value in values) for name, values in parameters().items()}

    def convolve(x, name, stride, pad):
        kernel, bias, gamma, beta = parts[name]
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        outputs = np.tensordot(windows(x, kernel.shape[-1], stride), kernel, ((0, 3, 4), (1, 2, 3)))
        return ((outputs + bias) * gamma + beta).transpose(2, 0, 1)

    def windows(x, size, stride):
        return np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]

    means = np.array([122.782, 117.001, 104.298])
    x = (image.astype(float) - means).transpose(2, 0, 1) / 256
    # 255/256 of a pixel in [0, 1] is a 256th of a level.
    x = np.maximum(convolve(x, "conv32_down", 2, 0), 0)
    x = windows(x, 3, 2).max((3, 4))
    for name, _, _, stride in BLOCKS:
        change = np.maximum(convolve(x, f"{name}_conv1", stride, 2 - stride), 0)
        change = convolve(change, f"{name}_conv2", 1, 1)
        around = windows(x, 2, 2).mean((3, 4)) if stride == 2 else x
        total = np.zeros(np.maximum(change.shape, around.shape))
        for part in (change, around):
            total[tuple(slice(length) for length in part.shape)] += part
        x = np.maximum(total, 0)
    return x.mean((1, 2)) @ DENSE


def pictures():
    return reference_pictures(REFERENCES, dlib_resnet.SIDE)


def check_gradients(model):
    """Gradients of a projection of the embedding are the numerical ones."""
    direction = drawn("direction", 128)
    check_pixel_gradients(lambda images: tf.linalg.matvec(model(images)["embedding"], direction), pictures()["noise1"])


def test_the_file_is_read_in_its_order(content):
    weights = dlib_resnet.read_weights({FILE: content})
    assert list(weights) == [*SHAPES, "fc"]
    assert sum(value.size for values in weights.values() for value in values) == 5_607_488
    for name, (kernel, bias, gamma, beta) in parameters().items():
        values, offsets = weights[name]
        np.testing.assert_allclose(values[1, 2, 0, 5], kernel[5, 0, 1, 2] * gamma[5], rtol=1e-6)
        np.testing.assert_allclose(values, kernel.transpose(2, 3, 1, 0) * gamma, rtol=1e-6)
        np.testing.assert_allclose(offsets, bias * gamma + beta, rtol=1e-5, atol=1e-7)
    assert (weights["fc"][0] == DENSE).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", r"no weights of shape \(4736, 1, 1, 1\) for conv32_down"),
        (lambda content: content[: len(content) // 2], r"no weights of shape \(\d+, 1, 1, 1\) for conv256_"),
        (lambda content: content[:-100], r"no weights of shape \(256, 128, 1, 1\) for fc"),
        (
            lambda content: content.replace(dlib_tensor(512, 1, 1, 1, values=(np.empty(0),)), b""),
            r"for conv256_down_conv1",
        ),
        (lambda content: content[:400] + b"\0\0\x80\x7f" * 9 + content[436:], "weights of conv32_down are not finite"),
    ],
)
def test_other_files_are_refused(content, damage, message):
    with pytest.raises(UserError, match=f"^dlib_resnet: .*{message}.*choose the published file$"):
        dlib_resnet.read_weights({FILE: damage(content)})


def test_the_network_is_that_of_the_description(content):
    image = pictures()["noise0"]
    model = network_of(content)
    assert model.count_params() == 5_607_488
    output, expected = model(image[None] / np.float32(255))["embedding"][0].numpy(), forward(image)
    np.testing.assert_allclose(output, expected, atol=1e-4 * np.abs(expected).max())


def test_gradients_of_drawn_weights(content):
    check_gradients(network_of(content))


def test_a_network_is_loaded_behind_the_contract(in_cache, content):
    recogniser = load_network("dlib_resnet")
    assert (recogniser.name, recogniser.image_shape, recogniser.class_names) == ("dlib_resnet", (150, 150, 3), ())
    assert recogniser.logits is None
    images = np.stack(list(pictures().values()))
    raw = network_of(content)(images / np.float32(255))["embedding"].numpy()
    embed = embeddings(recogniser)
    np.testing.assert_allclose(embed(images), raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)
    larger = images.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(embed(larger), embed(images), atol=0.02)
    np.testing.assert_allclose(embed(images[1:2]), embed(images)[1:2], atol=1e-5)


def test_weights_are_not_set_inside_a_trace(in_cache):
    """Keras forgets in silence what ``set_weights`` does while a function is traced."""
    with pytest.raises(UserError, match=r"network dlib_resnet is loaded inside of a tf.function, .*; load it before$"):
        tf.function(lambda: load_network("dlib_resnet"), autograph=False)()


def test_nothing_is_parsed_of_a_damaged_file(in_cache, monkeypatch):
    monkeypatch.setattr(dlib_resnet, "read_weights", lambda files: pytest.fail("a damaged file was parsed"))
    content = in_cache.read_bytes()
    in_cache.write_bytes(content[:-1] + b"\1")
    with pytest.raises(UserError, match=r"dlib_resnet: .* has SHA-256 .*; delete it and run visor networks fetch"):
        load_network("dlib_resnet")
    in_cache.unlink()
    with pytest.raises(UserError, match="dlib_resnet is not here; run visor networks fetch dlib_resnet"):
        load_network("dlib_resnet")
    with pytest.raises(UserError, match="network is 'nobody'; choose from dlib_resnet, faceres"):
        load_network("nobody")


def test_a_recogniser_of_the_params_is_published_or_a_file_or_was_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load_recogniser", lambda name: f"published {name}")
    monkeypatch.setattr(loading.mobilefacenet, "load_recogniser", lambda path: f"file {path}")
    monkeypatch.setattr(loading.base, "load", lambda name, folder: f"saved {name} in {folder}")
    settings = RecogniserParams(weights="phone.tflite")
    assert loading.load_of_params("faceres", RecogniserParams(), tmp_path) == "published faceres"
    assert loading.load_of_params("mobilefacenet", settings, tmp_path) == "file phone.tflite"
    assert loading.load_of_params("facenet", settings, tmp_path) == f"saved facenet in {tmp_path}"
    with pytest.raises(UserError, match=r"recognisers\.mobilefacenet\.weights is null; name its \.tflite file there"):
        loading.load_of_params("mobilefacenet", RecogniserParams(), tmp_path)


def test_every_published_network_is_in_the_catalogue():
    roles = {name: network.role for name, network in catalogue.read_catalogue().items()}
    assert {name for name in roles if roles[name] == "recogniser"} == set(loading.PUBLISHED_RECOGNISERS)
    assert {name for name in roles if roles[name] == "detector"} <= set(DETECTORS)
    assert (ROOT / "assets/networks.yaml").samefile(catalogue.CATALOGUE)


# With the published weights


@pytest.mark.parametrize("name", ["noise0", "noise1", "face"])
def test_outputs_are_dlibs(published, name):
    output = published[0](pictures()[name][None] / np.float32(255))["embedding"][0].numpy()
    np.testing.assert_allclose(output, REFERENCES[name], atol=1e-5)


def test_places_in_the_published_file(published):
    """Where the tensors are was found by another reader."""
    model, content = published

    def floats(offset, count):
        return np.frombuffer(content, "<f4", count, offset)

    for name, at, affine_at in (("conv32_down", 352, 19400), ("conv256_down_out_conv2", 19972170, 22332597)):
        filters, size = SHAPES[name][0], int(np.prod(SHAPES[name]))
        scale, shift = np.split(floats(affine_at, 2 * filters), 2)
        bias = floats(at, size + filters)[size:]
        np.testing.assert_allclose(model.get_layer(name).bias.numpy(), bias * scale + shift, atol=1e-6)
    assert (model.get_layer("fc").kernel.numpy().ravel() == floats(22334922, 256 * 128)).all()
    assert len(content) - 22334922 - 4 * 256 * 128 == 72


def test_gradients_of_the_published_weights(published):
    check_gradients(published[0])

"""Faster R-CNN of torchvision: loaded name by name from safetensors, with torchvision's outputs for drawn weights.

``torchvision_faster_rcnn.npz`` holds what torchvision 0.28 computed (7 classes, min_size 160) for the weights that
``drawn`` makes of their names and the picture below.
"""

import json
import re
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.support.tensor_files import safetensors_file
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES
from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.core.tf import tf
from visor.models import safetensors
from visor.models.detectors import torchvision_faster_rcnn as torchvision
from visor.photos import networks

REFERENCES = np.load(Path(__file__).with_name("torchvision_faster_rcnn.npz"))
CLASSES, MIN_SIDE, EPSILON = 7, 160, 1e-5
PICTURE = np.kron(np.random.default_rng(5).integers(0, 256, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))


@cache
def shapes():
    """The state dict of torchvision, by its names."""
    layers = {"backbone.body.conv1": (64, 3, 7, 7)}
    before = 64
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for number in range(blocks):
            name = f"backbone.body.layer{stage}.{number}"
            layers |= {f"{name}.conv1": (filters, before, 1, 1), f"{name}.conv2": (filters, filters, 3, 3)}
            layers[f"{name}.conv3"] = (4 * filters, filters, 1, 1)
            if number == 0:
                layers[f"{name}.downsample.0"] = (4 * filters, before, 1, 1)
            before = 4 * filters
    table = {}
    for name, shape in layers.items():
        table[f"{name}.weight"] = shape
        normalisation = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        table |= {f"{normalisation}.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
    for level in range(4):
        table[f"backbone.fpn.inner_blocks.{level}.0.weight"] = (256, 256 << level, 1, 1)
        table[f"backbone.fpn.layer_blocks.{level}.0.weight"] = (256, 256, 3, 3)
    table |= {"rpn.head.conv.0.0.weight": (256, 256, 3, 3), "rpn.head.cls_logits.weight": (3, 256, 1, 1)}
    table |= {"rpn.head.bbox_pred.weight": (12, 256, 1, 1), "roi_heads.box_head.fc6.weight": (1024, 12544)}
    table |= {"roi_heads.box_head.fc7.weight": (1024, 1024)}
    table |= {f"roi_heads.box_predictor.{part}.weight": (count * CLASSES, 1024) for part, count in HEADS}
    biases = {name.replace("weight", "bias"): shape[:1] for name, shape in table.items() if ".body." not in name}
    return table | biases


HEADS = (("cls_score", 1), ("bbox_pred", 4))


def drawn(key, shape):
    values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if key.endswith("running_var"):
        return 1 + np.float32(0.2) * np.tanh(values)
    if re.search(r"\.bn\d\.weight|downsample\.1\.weight", key):
        return np.float32(0.5) + np.float32(0.1) * np.tanh(values)
    if len(shape) == 1:
        return np.float32(0.1) * values
    gain = np.float32(np.sqrt(2 / np.prod(shape[1:])))
    gain *= np.float32(0.3 if "bbox_pred" in key else 2.0 if "cls_" in key else 1.0)
    return values * gain


def write(path, tensors):
    path.write_bytes(safetensors_file(tensors))
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The drawn network, from a file as torchvision's of 2019: former names, and counters of training steps."""
    tensors = {name: drawn(name, shape) for name, shape in shapes().items()}
    tensors = {
        name.replace("rpn.head.conv.0.0", "rpn.head.conv").replace("_blocks.0.0.", "_blocks.0."): values
        for name, values in tensors.items()
    }
    tensors["backbone.body.bn1.num_batches_tracked"] = np.zeros((), "<i8")
    path = write(tmp_path_factory.mktemp("torchvision") / "drawn.safetensors", tensors)
    loaded = torchvision.load_network(path, EPSILON)
    path.unlink()
    return loaded


@cache
def prepared():
    return torchvision.resize(tf.constant(PICTURE[None] / np.float32(255)), MIN_SIDE)


def close(output, expected, share=1e-4):
    np.testing.assert_allclose(output, expected, atol=share * np.abs(expected).max())


def corners(boxes):
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)


def channels_first(features):
    return np.asarray(features)[0].transpose(2, 0, 1)


def test_parameters(network):
    """41,755,286 with 91 classes, and scale and shift of each frozen batch normalisation."""
    assert len(shapes()) == 295
    assert sum(np.prod(shape) for shape in shapes().values()) == 41_861_526 - (91 - CLASSES) * 5 * 1025
    assert sum(part.count_params() for part in network) == 41_755_286 - (91 - CLASSES) * 5 * 1025 + 2 * 26_560


def test_parameters_that_are_trained():
    """As torchvision counts them: frozen batch normalisation is no parameter."""
    model = torchvision.build(800)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == 41_299_161
    torchvision.select_layers(model, "predictions")
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == 15 * 257 + 10 * 1025


def test_the_transform_is_torchvisions():
    padded, sides = prepared()
    assert sides.tolist() == REFERENCES["size"].tolist()
    assert channels_first(padded).shape == tuple(REFERENCES["batch_shape"][1:])
    np.testing.assert_allclose(channels_first(padded)[:, ::13, ::17], REFERENCES["batch"], atol=1e-5)


def test_maps_scores_and_shifts_are_torchvisions(network):
    maps = network.pyramid(prepared()[0])
    for level, features in enumerate(maps):
        close(channels_first(features)[::37, ::3, ::3], REFERENCES[f"map_{level}"])
        scores, shifts = network.proposal_head(features)
        close(channels_first(scores)[:, ::3, ::3], REFERENCES[f"objectness_{level}"])
        close(channels_first(shifts)[:, ::3, ::3], REFERENCES[f"shifts_{level}"])


def test_anchors_are_torchvisions():
    maps = ((40, 56, 32), (20, 28, 64), (10, 14, 128), (5, 7, 256), (3, 4, 512))
    anchors = np.concatenate([torchvision.make_anchors((160, 224), *each) for each in maps])
    assert anchors.shape == tuple(REFERENCES["anchors_shape"])
    assert (corners(anchors)[::97] == REFERENCES["anchors"]).all()


def test_features_in_boxes_and_the_head_are_torchvisions(network):
    maps = network.pyramid(prepared()[0])
    boxes = REFERENCES["boxes"]
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)[None]
    inside = torchvision.roi_align(maps[:4], tf.constant(boxes))[0]
    close(inside.numpy().transpose(0, 3, 1, 2)[:, ::37], REFERENCES["aligned"])
    logits, offsets = network.box_head(inside)
    close(logits, REFERENCES["logits"])
    close(offsets, REFERENCES["offsets"])


def test_detections_are_torchvisions(network):
    padded, sides = prepared()
    outputs = torchvision.forward(network, padded, sides)
    proposals = corners(outputs.proposals[0])
    distances = [np.abs(proposals - box).max(1).min() for box in REFERENCES["proposals"]]
    assert (np.array(distances) < 0.1).mean() >= 0.99
    detector = torchvision.photo_detector(network, 0.5, MIN_SIDE, 5)
    (found,) = detector.detect(PICTURE[None])
    wanted = REFERENCES["detected_labels"] == 5
    boxes, scores = REFERENCES["detected_boxes"][wanted], REFERENCES["detected_scores"][wanted]
    near = [np.abs(corners(found.boxes) - box).max(1) for box in boxes]
    same = [
        row.min() < 0.1 and abs(found.scores[row.argmin()] - score) < 0.01
        for row, score in zip(near, scores, strict=True)
    ]
    assert np.mean(same) >= 0.99
    assert len(found.boxes) >= len(boxes) > 50


def test_losses_have_gradients(network, monkeypatch):
    monkeypatch.setattr(torchvision, "PROPOSALS", 40)
    detector = torchvision.photo_detector(network, 0.5, 64, 5)
    loss = DETECTOR_LOSSES["suppress"](detector.pre_nms, detector.loss, 0.9, 1.0)
    with tf.GradientTape() as tape:
        images = tf.constant(np.stack([PICTURE, PICTURE[::-1]]) / np.float32(255))
        tape.watch(images)
        values, _ = loss(images, None)
    gradient = tape.gradient(values, images).numpy()
    assert values.shape == (2,)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max((1, 2, 3)) > 0).all()


# Refusals


def load(path, **options):
    return networks.open_detector(str(path), None, [f"{name}={value}" for name, value in options.items()])


def test_a_file_is_loaded_by_the_command_line(monkeypatch, tmp_path):
    calls, small = [], torchvision.build_network(3)
    monkeypatch.setattr(torchvision, "load_network", lambda *arguments: calls.append(arguments) or small)
    detector = load(tmp_path / "a.safetensors", min_side=320, face=2, epsilon=1e-5)
    assert (detector.name, detector.threshold, detector.loss) == ("torchvision_faster_rcnn", 0.5, None)
    assert calls == [(tmp_path / "a.safetensors", 1e-5)]
    for options, problem in (
        ({"face": 3}, "face is 3; choose a class from 1 to 2"),
        ({"min_side": 20}, "min_side is 20; choose a whole number from 64 to 1600"),
        ({"epsilon": 2}, r"epsilon is 2; choose 0\.0 or 1e-5"),
        ({"width": 2}, "has no option width; it takes path, min_side, epsilon, face"),
    ):
        with pytest.raises(UserError, match=f"torchvision_faster_rcnn:? {problem}"):
            load(tmp_path / "a.safetensors", **options)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path, suffix):
    with pytest.raises(
        UserError, match=r"is a pickle, which can run code .*; convert it once with python -c \"import t"
    ):
        torchvision.load(DetectorParams(threshold=0.5, options={"path": str(tmp_path / f"a{suffix}")}), tmp_path)


SCORE, BOXES = (f"roi_heads.box_predictor.{part}.weight" for part in ("cls_score", "bbox_pred"))
HEAD = {SCORE: np.zeros((2, 1024), "<f4"), BOXES: np.zeros((8, 1024), "<f4")}
STEM = {"backbone.body.conv1.weight": np.zeros((64, 3, 7, 7), "<f4")} | {
    f"backbone.body.bn1.{part}": np.ones(64, "<f4") for part in ("weight", "bias", "running_mean", "running_var")
}
SHAPE = "weights of another shape; choose a Faster R-CNN with ResNet-50"


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        (
            {"model.conv": np.zeros(2, "<f4")},
            "has no tensor roi_heads.box_predictor.cls_score or roi_heads.box_predictor.bbox_pred; if the state dict",
        ),
        (HEAD, "has no tensor backbone.body.conv1.weight; choose a state dict of fasterrcnn_resnet50_fpn"),
        (
            HEAD | STEM | {"backbone.body.conv1.weight": np.zeros((64, 3, 3, 3), "<f4")},
            f"backbone.body.conv1 has {SHAPE}",
        ),
        (HEAD | STEM | {"backbone.body.bn1.bias": np.ones(3, "<f4")}, f"backbone.body.bn1 has {SHAPE}"),
        (HEAD | STEM | {"backbone.body.bn1.running_var": -np.ones(64, "<f4")}, "backbone.body.bn1 has a variance that"),
        *((HEAD | {SCORE: np.zeros(shape, "<f4")}, f"box_predictor has {SHAPE}") for shape in ((), (0, 1024), (9, 0))),
        (
            HEAD | dict.fromkeys(("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"), np.zeros(1, "<f4")),
            "has rpn.head.conv.0.0.weight under two names",
        ),
    ],
)
def test_state_dicts_of_other_networks_are_refused(tmp_path, tensors, problem):
    with pytest.raises(UserError, match=rf"a\.safetensors:? (roi_heads\.)?{problem}"):
        torchvision.load_network(write(tmp_path / "a.safetensors", tensors), 0.0)


TENSORS = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.array([0.5, -2], "<f2"), "c": np.array(7, "<i8")}


def test_safetensors_are_read(tmp_path):
    tensors = safetensors.read_tensors(write(tmp_path / "a.safetensors", TENSORS))
    assert list(tensors) == ["a", "b"]
    assert (tensors["a"] == TENSORS["a"]).all()
    assert tensors["b"].dtype == np.float32
    assert tensors["b"].tolist() == [0.5, -2]


def header_of(content, change):
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def edited(*path, value):
    def edit(content):
        def change(header):
            *steps, last = path
            for step in steps:
                header = header[step]
            header[last] = value

        return header_of(content, change)

    return edit


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda content: b"", "its header cannot have 0 bytes"),
        (lambda content: (1 << 40).to_bytes(8, "little") + content[8:], "its header cannot have 1099511627776 bytes"),
        (lambda content: content[:8] + b"\xff" + content[9:], "its header is not JSON"),
        (lambda content: content + b"\0", "1 bytes are left behind the last tensor"),
        (lambda content: content[:-1], "c does not lie where its shape and its neighbours put it"),
        (edited("a", "dtype", value="BF16"), r"its header is wrong at a"),
        (edited("a", "shape", value=[2, -3]), r"its header is wrong at a"),
        (edited("a", "shape", value=[2, 2]), "a does not lie where its shape and its neighbours put it"),
        (edited("b", "data_offsets", value=[20, 24]), "b does not lie where its shape and its neighbours put it"),
        (edited("b", "data_offsets", value=[24]), r"its header is wrong at b"),
        (lambda content: content[:-36] + b"\0\0\x80\x7f" + content[-32:], "a has numbers that are not finite"),
        (lambda content: content.replace(b'"b": {', b'"a": {'), "its header has a twice"),
        (edited("a", "shape", value=[2, "3"]), r"its header is wrong at a"),
        (edited("a", "shape", value=[0, 1 << 63]), r"its header is wrong at a"),
        (edited("a", "shape", value=[1] * 33), r"its header is wrong at a"),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, edit, problem):
    path = write(tmp_path / "a.safetensors", TENSORS)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(UserError, match=rf"a\.safetensors: {problem}.*; save it again as \.safetensors"):
        safetensors.read_tensors(path)
    with pytest.raises(UserError, match=r"b\.safetensors does not exist; correct the path"):
        safetensors.read_tensors(tmp_path / "b.safetensors")

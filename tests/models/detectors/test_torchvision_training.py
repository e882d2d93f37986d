"""Faster R-CNN of torchvision, fine-tuned to faces: what is sampled, its losses, what learns, and from which weights.

The network is tiny here, but has all layers of the large one.
"""

import importlib.util
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.models.detectors.test_faster_rcnn import crude_scenes
from tests.models.detectors.test_torchvision_faster_rcnn import write
from tests.support.project import ROOT
from visor.core.config import load_params
from visor.core.errors import UserError
from visor.core.params import DetectorParams, TrainingParams
from visor.core.tf import tf
from visor.data.scene_set import FACE, IGNORE, PADDING, Scene, write_scenes
from visor.models import storage, training
from visor.models.detectors import ssd
from visor.models.detectors import torchvision_faster_rcnn as torchvision
from visor.models.detectors.initial_weights import load_initial_weights

SIDE = 64
TINY = {
    "STAGES": ((2, 1), (3, 1), (4, 2), (5, 1)),
    "CHANNELS": 8,
    "UNITS": 16,
    "ANCHOR_SIZES": (8, 16, 32, 48, 64),
    "PROPOSALS": 30,
    "TRAINING_PROPOSALS": 60,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    for name, value in TINY.items():
        monkeypatch.setattr(torchvision, name, value)


def fresh(seed=1):
    keras.utils.set_random_seed(seed)
    return torchvision.build(SIDE)


def scenes(n, seed=0):
    images, truth = crude_scenes(n, seed)
    return tf.constant(images / np.float32(255)), truth


def named(model):
    """The values of all weights by layer and name; random states are left out."""
    return {
        f"{layer.name}/{variable.name}": variable.numpy()
        for part in model.network
        for layer in part.layers
        for variable in layer.weights
    }


# Losses


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    common = np.prod(np.maximum(high - low, 0))
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def expected_losses(logits, offsets, boxes, truth, positive, negative, weights):
    """Cross-entropy and smooth L1 of one image over all its boxes, as torchvision writes them."""
    faces = truth[0][truth[1] == FACE]
    overlaps = np.array([[iou(box, face) for face in faces] for box in boxes]).reshape(len(boxes), len(faces))
    best = overlaps.max(0, initial=0)
    is_face = (overlaps.max(1, initial=0) >= positive) | ((overlaps == best) & (best > 0)).any(1)
    is_background = ~is_face & (overlaps.max(1, initial=0) < negative)
    sampled = is_face | is_background
    entropies = np.logaddexp(0, np.where(is_face, -logits, logits))
    total = 0.0
    for row in np.flatnonzero(is_face):
        favourites = np.where((overlaps[row] == best) & (best > 0), overlaps[row] + 1, overlaps[row])
        face, box = faces[favourites.argmax()], boxes[row]
        middle = (face[:2] + face[2:] / 2 - box[:2] - box[2:] / 2) / box[2:]
        wanted = np.concatenate([middle, np.log(face[2:] / box[2:])]) * weights
        errors = np.abs(offsets[row] - wanted)
        total += np.where(errors < 1 / 9, errors**2 / (2 / 9), errors - 1 / 18).sum()
    return entropies[sampled].sum() / sampled.sum(), total / sampled.sum()


@pytest.mark.parametrize("faces", [0, 1, 2])
def test_losses_by_hand(faces, monkeypatch):
    """With a sample that takes everything: means over anchors, and over proposals and the faces themselves."""
    for name, value in {"ANCHOR_SAMPLES": 10_000, "ANCHOR_FACES": 1.0, "BOX_SAMPLES": 10_000, "BOX_FACES": 1.0}.items():
        monkeypatch.setattr(torchvision, name, value)
    model, (images, truth) = fresh(), scenes(6)
    row = slice(faces, faces + 1)
    pixels, boxes, kinds = images[row], truth[0][faces], truth[1][faces]
    assert (kinds == FACE).sum() == faces
    found = torchvision.losses(model, pixels, (truth[0][row], truth[1][row]), training=False)

    padded, sides = torchvision.resize(pixels, SIDE)
    maps, scores, shifts = torchvision._first_stage(model.network, padded)
    grid = np.concatenate(
        [
            torchvision.make_anchors((SIDE, SIDE), *score.shape[1:3], size)
            for score, size in zip(scores, TINY["ANCHOR_SIZES"], strict=True)
        ]
    )
    logits = np.concatenate([score.numpy().ravel() for score in scores])
    offsets = np.concatenate([shift.numpy().reshape(-1, 4) for shift in shifts])
    anchors = expected_losses(logits, offsets, grid, (boxes, kinds), 0.7, 0.3, np.ones(4))
    proposals = torchvision.propose(scores, shifts, (SIDE, SIDE), sides, 30)[0].numpy()
    proposals = np.concatenate([proposals, boxes[kinds == FACE]])
    proposals = proposals[proposals[:, 2:].min(1) > 0]
    class_logits, class_offsets = torchvision._second_stage(model.network, maps, tf.constant(proposals[None]))
    difference = (class_logits[0, :, 1] - class_logits[0, :, 0]).numpy()
    head = expected_losses(
        difference, class_offsets[0, :, 1].numpy(), proposals, (boxes, kinds), 0.5, 0.5, np.array([10, 10, 5, 5])
    )
    names = ("anchor_score", "anchor_box", "score", "box")
    np.testing.assert_allclose([found[name][0] for name in names], [*anchors, *head], rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(found["loss"][0], sum(anchors + head), rtol=2e-4)


def test_offsets_are_decoded_to_what_was_encoded():
    rng = np.random.default_rng(2)
    boxes, reference = (np.concatenate([rng.uniform(0, 50, (9, 2)), rng.uniform(5, 30, (9, 2))], 1) for _ in range(2))
    boxes, reference = boxes.astype(np.float32), reference.astype(np.float32)
    offsets = torchvision.encode(boxes, reference, torchvision.BOX_WEIGHTS)
    np.testing.assert_allclose(torchvision.decode(offsets, reference, torchvision.BOX_WEIGHTS), boxes, rtol=1e-4)


KINDS = np.full((2, 400), PADDING, np.int32)
KINDS[0, 10:200], KINDS[0, 300:] = FACE, IGNORE
KINDS[1, :5], KINDS[1, 20:] = FACE, IGNORE


@pytest.mark.parametrize("is_training", [False, True])
def test_a_quarter_of_the_sample_has_faces_at_most(is_training):
    model = fresh()
    rows, is_one = torchvision._sample(model, KINDS, 64, 0.25, is_training)
    for image, (faces, others) in enumerate(((16, 48), (5, 15))):
        drawn = rows[image].numpy()[is_one[image].numpy()]
        assert len(set(drawn)) == len(drawn) == faces + others
        assert (KINDS[image, drawn] == FACE).sum() == faces
        assert (KINDS[image, drawn] == PADDING).sum() == others


def test_samples_of_the_training_are_random_and_others_are_not():
    draw = tf.function(lambda model, is_training: torchvision._sample(model, KINDS, 64, 0.25, is_training)[0])
    model = fresh()
    first, second = (set(draw(model, True)[0].numpy()) for _ in range(2))
    assert first != second
    np.testing.assert_array_equal(draw(model, False), draw(model, False))
    keras.utils.set_random_seed(1)
    assert set(draw(torchvision.build(SIDE), True)[0].numpy()) == first, "the seed decides"


def test_each_image_has_its_own_loss():
    model, (images, truth) = fresh(), scenes(3)
    together = torchvision.losses(model, images, truth, False)
    for row in range(3):
        one = slice(row, row + 1)
        alone = torchvision.losses(model, images[one], tuple(part[one] for part in truth), False)
        for name in ("anchor_box", "box"):
            np.testing.assert_allclose(together[name][row], alone[name][0], rtol=1e-3, atol=1e-5)
        assert together["loss"].shape == (3,)


# Learning


def fit_steps(model, layers, steps, rate=0.01, clip_norm=None, n=4):
    images, truth = crude_scenes(n)
    torchvision.select_layers(model, layers)
    schedule = TrainingParams(epochs=1, batch=1, learning_rate=rate, optimizer="sgd", decay=0.1, clip_norm=clip_norm)
    step, _ = training.compile_steps(model, training.make_optimizer(schedule, 10_000), torchvision.losses, truth)
    rows = [slice(number % n, number % n + 1) for number in range(steps)]
    return [float(step(images[row], tuple(part[row] for part in truth))["loss"]) for row in rows]


@pytest.mark.parametrize("layers", ["all", "predictions"])
def test_a_step_moves_what_it_may(layers):
    """Batch normalisation stays as it was; of the other layers all kernels move, or those of the predictions alone."""
    model = fresh()
    before = named(model)
    fit_steps(model, layers, 4)
    moved = {name for name, values in named(model).items() if not np.array_equal(values, before[name])}
    frozen = {name for name in before if name.endswith(("/scale", "/shift"))}
    kernels = {name for name in before if name.endswith("/kernel")}
    assert len(frozen) == 2 * (1 + 3 * 5 + 4)
    assert not moved & frozen
    if layers == "all":
        assert kernels <= moved
    else:
        assert kernels & moved == {f"{name}/kernel" for name in torchvision.PREDICTIONS}
        assert {name.split("/")[0] for name in moved} == torchvision.PREDICTIONS


def test_the_kernel_learns_as_if_normalisation_came_after_it():
    """Not as a kernel that it is folded into: with scale s that one would move by s² as much."""
    layer = torchvision.FrozenNormConv2D(3, 3, 1, "conv")
    features = tf.constant(np.random.default_rng(1).normal(size=(2, 5, 5, 4)).astype(np.float32))
    layer(features)
    kernel, scale, shift = np.float32(layer.kernel), np.float32([0.5, 2, -3]), np.float32([1, 0, 2])
    layer.set_weights([kernel, scale, shift])
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        expected = tf.nn.conv2d(features, variable, 1, "VALID") * scale + shift
        wanted = tape.gradient(tf.reduce_sum(expected**2), variable)
    with tf.GradientTape() as tape:
        outputs = layer(features)
        found = tape.gradient(tf.reduce_sum(outputs**2), layer.trainable_variables)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert len(found) == 1
    np.testing.assert_allclose(found[0], wanted, rtol=1e-3, atol=1e-3)


def test_it_learns_a_few_scenes():
    model = fresh()
    values = fit_steps(model, "all", 120, rate=0.005, clip_norm=5.0)  # large, as nothing normalises drawn weights
    assert np.isfinite(values).all()
    assert np.mean(values[-8:]) < 0.5 * np.mean(values[:8])


def test_a_trained_detector_comes_back_and_has_gradients(tmp_path):
    model, (images, truth) = fresh(), scenes(2)
    fit_steps(model, "all", 3)
    storage.save_model(model, {"input_size": SIDE}, tmp_path / "a")
    storage.save_model(model, {"input_size": SIDE}, tmp_path / "b")
    assert (tmp_path / "a/model.weights.h5").read_bytes() == (tmp_path / "b/model.weights.h5").read_bytes()
    detector = torchvision.load(DetectorParams(threshold=0.4, options={"input_size": SIDE}), tmp_path / "a")
    assert (detector.name, detector.threshold) == ("torchvision_faster_rcnn", 0.4)
    for ours, theirs in zip(detector.pre_nms(images), torchvision.detector(model, 0.4).pre_nms(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        loss, scores = detector.loss(images, truth), detector.pre_nms(images)[1]
    for value in (loss, scores):
        gradient = tape.gradient(value, images).numpy()
        assert np.isfinite(gradient).all()
        assert (np.abs(gradient).max((1, 2, 3)) > 0).all()
    assert len(detector.detect(np.zeros((2, 40, 90, 3), np.uint8))) == 2, "images of any size"


# Weights to start from


def state_dict(model, classes=2):
    """The tensors of a network by torchvision's names, drawn anew."""
    rng, tensors = np.random.default_rng(7), {}
    for layer in (layer for part in model.network for layer in part.layers if layer.weights):
        shape = tuple(layer.kernel.shape)
        name, sides = layer.name, (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        if name in torchvision.BOX_PREDICTOR:
            sides = (sides[0] * classes // 2, sides[1])
        tensors[f"{name}.weight"] = rng.normal(size=sides).astype("<f4")
        if name.startswith("backbone.body."):
            norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
            for part in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"{norm}.{part}"] = rng.uniform(0.5, 1, sides[:1]).astype("<f4")
        else:
            tensors[f"{name}.bias"] = rng.normal(size=sides[:1]).astype("<f4")
    return tensors


@pytest.mark.parametrize("classes", [2, 91])
def test_training_starts_from_a_state_dict(classes, tmp_path):
    """A head of other classes is new; everything else is the file's."""
    model = fresh()
    tensors, before = state_dict(model, classes), named(model)
    path = write(tmp_path / "a.safetensors", tensors)
    load_initial_weights(model, torchvision.build, str(path), None)
    after = named(model)
    for name in torchvision.BOX_PREDICTOR:
        expected = before[f"{name}/kernel"] if classes == 91 else tensors[f"{name}.weight"].T
        np.testing.assert_array_equal(after[f"{name}/kernel"], expected)
        assert np.abs(before[f"{name}/kernel"]).max() <= 16**-0.5
    new = {f"{name}/{part}" for name in torchvision.BOX_PREDICTOR for part in ("kernel", "bias")}
    assert all((after[name] != before[name]).any() for name in after.keys() - new)
    stem = tensors["backbone.body.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(after["backbone.body.conv1/kernel"], stem)
    scale, shift, mean, variance = (
        tensors[f"backbone.body.bn1.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    np.testing.assert_allclose(after["backbone.body.conv1/scale"], scale / np.sqrt(variance), rtol=1e-6)
    np.testing.assert_allclose(after["backbone.body.conv1/shift"], shift - mean * scale / np.sqrt(variance), rtol=1e-5)


def test_weights_that_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"a\.pth is a pickle, .*; convert it once with python -c \"import torch"):
        load_initial_weights(fresh(), torchvision.build, str(tmp_path / "a.pth"), None)
    tensors = state_dict(fresh())
    del tensors["rpn.head.cls_logits.bias"]
    path = str(write(tmp_path / "a.safetensors", tensors))
    with pytest.raises(UserError, match=r"a\.safetensors has no tensor rpn\.head\.cls_logits\.bias"):
        load_initial_weights(fresh(), torchvision.build, path, None)
    with pytest.raises(UserError, match=r"a\.safetensors is not an HDF5 file"):
        load_initial_weights(ssd.build(96, 0.25), ssd.build, path, None)


@pytest.mark.parametrize("side", [32, 100, 1632, "800", 800.0])
def test_impossible_sizes_are_refused(side):
    with pytest.raises(UserError, match=f"input_size is {side!r}; choose a multiple of 32 from 64 to 1600"):
        torchvision.build(side)


# By params


def test_the_stage_trains_it_by_params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    schedule = load_params().detectors["torchvision_faster_rcnn"].training
    assert (schedule.optimizer, schedule.batch, schedule.decay, schedule.layers) == ("sgd", 1, 0.1, "predictions")
    optimizer = training.make_optimizer(schedule, steps=5)
    assert optimizer.momentum == 0.9
    rates = [float(optimizer._learning_rate(step)) for step in (0, 4, 5, 10)]
    np.testing.assert_allclose(rates, np.array([1, 1, 0.1, 0.01]) * schedule.learning_rate, rtol=1e-6)

    params = YAML(typ="safe").load(Path("params.yaml"))
    block = params["detectors"]["torchvision_faster_rcnn"]
    block["options"] = {"input_size": SIDE}
    block["training"] |= {"weights": str(write(tmp_path / "a.safetensors", state_dict(fresh(), 91))), "epochs": 2}
    params["trained_detectors"] = ["torchvision_faster_rcnn"]
    with Path("params.yaml").open("w") as file:
        YAML(typ="safe").dump(params, file)
    images, (boxes, kinds) = crude_scenes(6)
    sets = ["train"] * 4 + ["validation"] * 2
    write_scenes(
        Path("data/scenes.h5"),
        [
            Scene(
                str(row), images[row], boxes[row][kinds[row] == FACE], np.zeros(faces, bool), np.zeros((faces, 6)), part
            )
            for row, part in enumerate(sets)
            for faces in [(kinds[row] == FACE).sum()]
        ],
        "test",
        "none",
    )
    spec = importlib.util.spec_from_file_location("train_detectors", ROOT / "stages/train_detectors.py")
    stage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stage)
    monkeypatch.setattr(stage, "configure_tensorflow", lambda *_: None)
    stage.main()
    folder = Path("artifacts/detector/torchvision_faster_rcnn")
    history = Path("metrics/history/detector/torchvision_faster_rcnn.csv").read_text().splitlines()
    assert history[0].startswith("epoch,loss,anchor_score,anchor_box,score,box,validation_loss")
    assert len(history) == 3
    model = storage.load_model(torchvision.build, folder)
    stem = state_dict(fresh(), 91)["backbone.body.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(named(model)["backbone.body.conv1/kernel"], stem)

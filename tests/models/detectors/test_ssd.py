"""SSD: its losses by hand, gradients down to the pixels, images of any size, weights from files, and that it learns."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.data.scene_set import FACE, IGNORE, PAD_VALUE
from visor.models import batch_normalization, pretrained, storage
from visor.models.detectors import anchors, ssd
from visor.models.detectors.base import Detections, letterbox, letterboxed_detector
from visor.models.detectors.initial_weights import load_initial_weights

SIDE, WIDTH = 96, 0.25


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(4)
    return ssd.build(SIDE, WIDTH)


def images(n=3, height=SIDE, width=SIDE, seed=2):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def floats(*arguments, **more):
    return tf.constant(images(*arguments, **more).astype(np.float32) / 255)


def scenes(n=8, seed=1):
    """Bright tall boxes on dark noise, one or two an image: images, (boxes, kinds)."""
    rng = np.random.default_rng(seed)
    pictures, boxes, kinds = images(n, seed=seed) // 4, np.zeros((n, 2, 4), np.float32), np.zeros((n, 2), np.int32)
    for row in range(n):
        for face in range(1 + row % 2):
            w = rng.integers(14, 30)
            x, y, h = rng.integers(0, 18) + 48 * face, rng.integers(0, 50), w * 5 // 4
            pictures[row, y : y + h, x : x + w] = rng.integers(180, 250, 3)
            boxes[row, face], kinds[row, face] = (x, y, w, h), FACE
    return pictures, (boxes, kinds)


def test_outputs_are_of_every_anchor(model):
    logits, offsets = model(floats())
    count = 2 * (12 * 12 + 6 * 6 + 3 * 3)
    assert logits.shape == (3, count)
    assert offsets.shape == (3, count, 4)
    assert ssd.anchors(SIDE).shape == (count, 4)
    scores = tf.sigmoid(logits).numpy()
    assert 0.001 < np.median(scores) < 0.1, "an anchor is rarely a face, before training too"


def test_an_anchor_sees_the_features_of_its_own_cell(model):
    """A change of pixels changes most the logits of anchors over it: outputs are in the order of the anchors."""
    grid = ssd.anchors(SIDE).numpy()
    centres = grid[:, :2] + grid[:, 2:] / 2
    for x, y in ((12, 52), (76, 20)):
        changed = floats(1).numpy()
        changed[0, y - 4 : y + 4, x - 4 : x + 4] = 1
        moved = np.abs(model(changed)[0] - model(floats(1))[0])[0][: 2 * 12 * 12]
        np.testing.assert_allclose(centres[moved.argmax()], (x, y), atol=17)


def test_backbone_is_the_one_of_keras(model):
    theirs = keras.applications.MobileNet((SIDE, SIDE, 3), alpha=WIDTH, include_top=False, weights=None)
    mine = [model.get_layer(layer.name) for layer in theirs.layers[1:]]
    assert sum(layer.count_params() for layer in mine) == theirs.count_params() == 218_544
    for layer in mine:
        layer_of_keras = theirs.get_layer(layer.name)
        layer_of_keras.set_weights(layer.get_weights())
    pixels = floats()
    ours = keras.Model(model.input, model.get_layer("conv_pw_13_relu").output)
    np.testing.assert_allclose(ours(pixels), theirs(pixels * 2 - 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [True, False])
def test_fused_normalisation_is_that_of_keras(scale):
    features = tf.constant(np.random.default_rng(0).normal(3, 2, (4, 5, 7, 6)).astype(np.float32))
    mine, theirs = (
        kind(momentum=0.9, scale=scale)
        for kind in (batch_normalization.BatchNormalization, keras.layers.BatchNormalization)
    )
    np.testing.assert_allclose(mine(features, training=True), theirs(features, training=True), atol=1e-5)
    np.testing.assert_allclose(mine.moving_mean, theirs.moving_mean, rtol=1e-5)
    count = 4 * 5 * 7
    unbiased = 0.9 + (theirs.moving_variance - 0.9) * count / (count - 1)
    np.testing.assert_allclose(mine.moving_variance, unbiased, rtol=1e-5)
    theirs.set_weights(mine.get_weights())
    np.testing.assert_array_equal(mine(features), theirs(features))
    mine.trainable = False
    np.testing.assert_array_equal(mine(features, training=True), mine(features))


@pytest.mark.parametrize(("side", "levels"), [(96, 3), (160, 3), (192, 4), (320, 4), (640, 5)])
def test_anchors_reach_the_size_of_the_image(side, levels):
    assert len(ssd.strides(side)) == levels
    largest = ssd.anchors(side).numpy()[:, 2:].max()
    assert 0.5 * side < largest < 1.3 * side


def test_real_sizes_have_an_output_for_every_anchor():
    with keras.StatelessScope(initialize_variables=False):  # shapes without values
        model = ssd.build(416, 1.0)
    assert model.output_shape[0] == (None, len(ssd.anchors(416)))
    assert model.get_layer("conv_pw_13").filters == 1024


def test_losses_by_hand():
    grid = ssd.anchors(SIDE).numpy()
    face, ignored = grid[301] + np.float32([0.8, 0, 0, 0]), grid[305]
    truth = np.stack([face, ignored])[None], np.int32([[FACE, IGNORE]])
    logits, offsets = np.full((1, len(grid)), -2, np.float32), np.zeros((1, len(grid), 4), np.float32)
    logits[0, 301] = 1.0
    logits[0, [0, 2, 9]] = 3.0, 2.0, 4.0
    logits[0, 305] = 9.0  # inside the ignored box
    fake = lambda pixels, training: (tf.constant(logits), tf.constant(offsets))  # noqa: E731
    kinds = anchors.assign_targets(grid, *truth, anchors.POSITIVE, anchors.NEGATIVE).kinds.numpy()[0]
    assert kinds[301] == FACE
    assert kinds[305] == IGNORE
    faces = np.flatnonzero(kinds == FACE)
    entropy = lambda x, y: np.log1p(np.exp(-x if y else x))  # noqa: E731
    hard = np.sort([entropy(float(v), 0) for v in logits[0][kinds == 0]])[::-1][: anchors.NEGATIVE_RATIO * len(faces)]
    scores = sum(entropy(float(logits[0, i]), 1) for i in faces) + hard.sum()
    wanted = anchors.encode(face, grid[faces]).numpy()
    places = np.where(np.abs(wanted) < 1, wanted**2 / 2, np.abs(wanted) - 0.5).sum()
    found = ssd.losses(fake, tf.zeros((1, SIDE, SIDE, 3)), truth, False)
    np.testing.assert_allclose(found["scores"], [scores], rtol=1e-5)
    np.testing.assert_allclose(found["places"], [places], rtol=1e-4)
    np.testing.assert_allclose(found["loss"], found["scores"] + found["places"], rtol=1e-6)


def test_images_are_on_their_own_and_gradients_reach_all_pixels(model):
    found = ssd.detector(model, 0.5)
    pictures, truth = scenes(3)
    pixels = tf.constant(pictures.astype(np.float32) / 255)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(pixels)
        loss = found.loss(pixels, truth)
        boxes, scores = found.pre_nms(pixels)
        total = tf.reduce_sum(scores) + tf.reduce_sum(boxes) / 100
    for value in (loss, total):
        gradient = tape.gradient(value, pixels).numpy()
        assert (np.abs(gradient).max(-1) > 0).mean(axis=(1, 2)).min() > 0.9
    assert loss.shape == (3,)
    for row in range(3):
        one = slice(row, row + 1)
        alone = found.pre_nms(pixels[one])
        np.testing.assert_allclose(boxes[one], alone[0], atol=1e-3)
        np.testing.assert_allclose(scores[one], alone[1], atol=1e-5)
        np.testing.assert_allclose(loss[one], found.loss(pixels[one], tuple(part[one] for part in truth)), rtol=1e-4)


def test_letterbox_keeps_the_picture_top_left():
    pixels = floats(2, 40, 80)
    squares, scale = letterbox(pixels, SIDE)
    np.testing.assert_allclose(scale, np.full(4, SIDE / 80))
    assert squares.shape == (2, SIDE, SIDE, 3)
    np.testing.assert_allclose(squares[:, :48], tf.image.resize(pixels, (48, SIDE), antialias=True), atol=1e-6)
    np.testing.assert_array_equal(squares[:, 48:], np.float32(PAD_VALUE / 255))
    same, scale = letterbox(floats(), SIDE)
    assert (scale == 1).all()
    np.testing.assert_array_equal(same, floats())


def test_few_pixels_are_scaled_by_what_is_left_of_them():
    """4 rows at 0.096 are one row, not 0.384 of one: a box of all the image stays one, there and back."""
    pixels, corner = floats(1, 4, 1000), tf.constant([[[0, 0, SIDE, 1]]], tf.float32)
    squares, scale = letterbox(pixels, SIDE)
    np.testing.assert_array_equal(squares[:, 1:], np.float32(PAD_VALUE / 255))
    np.testing.assert_allclose(np.float32([0, 0, 1000, 4]) * scale, [0, 0, SIDE, 1], rtol=1e-6)
    fake = letterboxed_detector("fake", 0.5, SIDE, 0.5, lambda _: (corner, tf.ones((1, 1))), lambda _, truth: truth[0])
    np.testing.assert_allclose(fake.pre_nms(pixels)[0], [[[0, 0, 1000, 4]]], rtol=1e-6)
    np.testing.assert_allclose(fake.loss(pixels, (np.float32([[[0, 0, 1000, 4]]]), None)), corner, rtol=1e-6)
    np.testing.assert_allclose(fake.detect(images(1, 4, 1000))[0].boxes, [[0, 0, 1000, 4]], rtol=1e-6)


def test_squares_cost_nothing():
    given, boxes = floats(), tf.zeros((3, 1, 4))
    fake = letterboxed_detector(
        "fake", 0.5, SIDE, 0.5, lambda pixels: (boxes, pixels), lambda pixels, truth: (pixels, *truth)
    )
    assert [own is same for own, same in zip(fake.pre_nms(given), (boxes, given), strict=True)] == [True, True]
    assert [own is same for own, same in zip(fake.loss(given, (boxes, 3)), (given, boxes, 3), strict=True)] == [
        True
    ] * 3


@pytest.fixture(scope="module")
def trained():
    """A network that has seen 8 scenes often."""
    keras.utils.set_random_seed(4)
    model, (pictures, truth) = ssd.build(SIDE, WIDTH), scenes()
    optimizer, pixels = keras.optimizers.Adam(1e-2), tf.constant(pictures.astype(np.float32) / 255)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(ssd.losses(model, pixels, truth, True)["loss"])
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return model, [float(step()) for _ in range(50)]


def overlap(a, b):
    sides = [min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def test_it_learns_eight_scenes_and_finds_their_faces(trained):
    model, losses = trained
    assert losses[-1] < 0.1 * losses[0]
    pictures, (boxes, kinds) = scenes()
    before = pictures.copy()
    found = ssd.detector(model, 0.5).detect(pictures)
    np.testing.assert_array_equal(pictures, before)
    for one, faces, kind in zip(found, boxes, kinds, strict=True):
        assert isinstance(one, Detections)
        assert one.boxes.dtype == one.scores.dtype == np.float32
        assert (np.diff(one.scores) <= 0).all()
        assert one.scores.min() >= 0.01
        assert one.scores.max() <= 1
        sure = one.boxes[one.scores >= 0.5]
        assert len(sure) <= (kind == FACE).sum() + 1
        for face in faces[kind == FACE]:
            assert max(overlap(box, face) for box in sure) > 0.5


def test_boxes_are_in_the_pixels_of_a_wide_image(trained):
    """Twice the size, half the height: the same faces at twice the places."""
    detector = ssd.detector(trained[0], 0.5)
    pictures, (boxes, kinds) = scenes()
    pictures[:, SIDE // 2 :] = 127
    wide = pictures[:, : SIDE // 2].repeat(2, axis=1).repeat(2, axis=2)
    assert wide.shape == (8, SIDE, 2 * SIDE, 3)
    narrow_found, wide_found = detector.detect(pictures), detector.detect(wide)
    overlaps = [
        max(overlap(2 * box, other) for other in b.boxes)
        for a, b in zip(narrow_found, wide_found, strict=True)
        for box, score in zip(a.boxes[:2], a.scores[:2], strict=True)
        if score > 0.5
    ]
    assert len(overlaps) >= 4
    assert np.mean(overlaps) > 0.6
    pixels = tf.constant(wide.astype(np.float32) / 255)
    _, scores = detector.pre_nms(pixels)
    np.testing.assert_allclose(tf.reduce_max(scores, 1), [found.scores[0] for found in wide_found], rtol=1e-4)
    squares, _ = letterbox(pixels, SIDE)
    loss = detector.loss(pixels, (2 * boxes, kinds))
    np.testing.assert_allclose(loss, detector.loss(squares, (boxes, kinds)), rtol=1e-5)


def test_each_shape_is_traced_once(model, monkeypatch):
    traces = []
    count = lambda pixels, training: traces.append(pixels.shape) or ([*map(tf.identity, model(pixels))])  # noqa: E731
    count.input_shape = model.input_shape
    detector = ssd.detector(count, 0.5)
    for n in (3, 1, 2):
        assert len(detector.detect(images(n))) == n
        assert len(detector.detect(images(n, 50, 70))) == n
    assert len(traces) == 2


def test_only_predictions_can_learn():
    model = ssd.build(SIDE, WIDTH)
    everything = len(model.trainable_variables)
    ssd.select_layers(model, "predictions")
    assert {variable.path.split("/")[0].split("_")[0] for variable in model.trainable_variables} == {
        "logits",
        "offsets",
    }
    pictures, truth = scenes(2)
    before = [variable.numpy() for variable in model.non_trainable_variables]
    ssd.losses(model, pictures.astype(np.float32) / 255, truth, True)
    for old, new in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)
    ssd.select_layers(model, "all")
    assert len(model.trainable_variables) == everything


def test_published_weights_of_mobilenet_are_taken(tmp_path):
    theirs = tf_keras.applications.MobileNet((SIDE, SIDE, 3), alpha=WIDTH, include_top=False, weights=None)
    theirs.set_weights(
        [np.random.default_rng(i).uniform(0.1, 0.4, w.shape) for i, w in enumerate(theirs.get_weights())]
    )
    theirs.save_weights(tmp_path / "mobilenet_2_5_224_tf_no_top.h5")
    model = ssd.build(SIDE, WIDTH)
    before = model.get_layer("logits_8").get_weights()[0]
    load_initial_weights(model, ssd.build, str(tmp_path / "mobilenet_2_5_224_tf_no_top.h5"), None)
    pixels = floats()
    ours = keras.Model(model.input, model.get_layer("conv_pw_13_relu").output)
    np.testing.assert_allclose(ours(pixels), theirs(pixels * 2 - 1), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(model.get_layer("logits_8").get_weights()[0], before)
    assert len(pretrained.load_pretrained(model, tmp_path / "mobilenet_2_5_224_tf_no_top.h5")) == 54


def test_saved_networks_come_back(trained, tmp_path):
    options = {"input_size": SIDE, "width": WIDTH}
    storage.save_model(trained[0], options, tmp_path / "ssd")
    storage.save_model(trained[0], options, tmp_path / "again")
    assert (tmp_path / "ssd/model.weights.h5").read_bytes() == (tmp_path / "again/model.weights.h5").read_bytes()
    detector = ssd.load(DetectorParams(threshold=0.4, options=options), tmp_path / "ssd")
    assert (detector.name, detector.threshold) == ("ssd", 0.4)
    pixels = floats()
    for one, other in zip(detector.pre_nms(pixels), ssd.detector(trained[0], 0.4).pre_nms(pixels), strict=True):
        np.testing.assert_array_equal(one, other)
    wider = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)], name="ssd")
    with pytest.raises(UserError, match="contains a ssd of other sizes"):
        load_initial_weights(wider, ssd.build, str(tmp_path / "ssd"), None)
    model = ssd.build(SIDE, WIDTH)
    load_initial_weights(model, ssd.build, str(tmp_path / "ssd"), None)
    np.testing.assert_array_equal(model(pixels)[0], trained[0](pixels)[0])


@pytest.mark.parametrize(
    ("side", "width", "said"),
    [
        (100, 0.5, "input_size is 100"),
        (64, 0.5, "input_size is 64"),
        ("160", 0.5, "input_size is '160'"),
        (160.0, 0.5, r"input_size is 160\.0"),
        (96, 0, "width is 0"),
        (96, "0.5", "width is '0.5'"),
    ],
)
def test_impossible_sizes_are_refused(side, width, said):
    with pytest.raises(UserError, match=said):
        ssd.build(side, width)

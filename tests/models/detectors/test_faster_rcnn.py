"""Faster R-CNN: what it looks at, what it learns from, what a fit moves, and that an attack sees through it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from visor.core.errors import UserError
from visor.core.params import ComputeParams, DetectorParams, TrainingParams
from visor.data.face_set import TrainingData
from visor.data.scene_set import FACE, IGNORE, PADDING
from visor.evaluation.boxes import iou
from visor.models import storage, training
from visor.models.detectors import faster_rcnn
from visor.models.detectors.anchors import decode
from visor.models.detectors.faster_rcnn import PROPOSAL_NMS_IOU, ProposalLayer, build, losses, roi_align, select_layers
from visor.models.inference import scale_pixels

SIDE = 64
REPEATABLE = ComputeParams(threads=2, deterministic=True)
RESUMABLE = ComputeParams(threads=2, deterministic=False)
ARGUMENTS = {"input_size": SIDE, "width": 8, "proposals": 10}


def crude_scenes(n, seed=0):
    """Dark scenes of 0 to 2 bright ellipses with two eyes, those of even and odd number apart; truth for 3 faces."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, SIDE, SIDE, 3), dtype=np.uint8)
    boxes, kinds = np.zeros((n, 3, 4), np.float32), np.full((n, 3), PADDING, np.int32)
    down, across = np.mgrid[:SIDE, :SIDE] + 0.5
    for row in range(n):
        for face in range(row % 3):
            w = rng.uniform(13, 22)
            h = 1.3 * w
            x, y = rng.uniform(0, SIDE / 2 - w) + face * SIDE / 2, rng.uniform(0, SIDE - h)
            u, v = (across - x - w / 2) / (w / 2), (down - y - h / 2) / (h / 2)
            images[row][u**2 + v**2 < 1] = rng.integers(160, 255, 3)
            images[row][((np.abs(u) - 0.4) / 0.2) ** 2 + ((v + 0.2) / 0.15) ** 2 < 1] = 0
            boxes[row, face], kinds[row, face] = (x, y, w, h), FACE
    return images, (boxes, kinds)


def fresh(seed=5, **arguments):
    keras.utils.clear_session()  # layer names start over, as in a new process
    keras.utils.set_random_seed(seed)
    return build(**ARGUMENTS | arguments)


@pytest.fixture(scope="module")
def learned():
    """A network after 100 steps on 8 scenes, these scenes, and the losses of the first and the last step."""
    model, (images, truth) = fresh(), crude_scenes(8)
    step, _ = training.compile_steps(model, keras.optimizers.Adam(3e-3), losses, truth)
    values = [step(images, truth) for _ in range(100)]
    return model, images, truth, values[0], values[-1]


def test_roi_align_is_the_mean_of_bilinear_samples():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    stride, bins = 8, 4
    boxes = np.float32([[(3, 4, 30, 21), (0, 0, 56, 40), (50, 33, 6, 7), (0, 0, 0, 0), (20.5, 9, 1, 30)]] * 2)
    boxes[1, :, :2] += 0.7
    expected = np.zeros((2, 5, bins, bins, 3))
    for n, k, p, q in np.ndindex(2, 5, bins, bins):
        x, y, w, h = boxes[n, k].astype(float)
        for i, j in np.ndindex(2, 2):
            row = np.clip((y + h * (p + (i + 0.5) / 2) / bins) / stride - 0.5, 0, 4)
            column = np.clip((x + w * (q + (j + 0.5) / 2) / bins) / stride - 0.5, 0, 6)
            top, left = min(int(row), 3), min(int(column), 5)
            down, right = row - top, column - left
            cell = features[n, top : top + 2, left : left + 2].astype(float)
            expected[n, k, p, q] += np.einsum("i,j,ijc->c", [1 - down, down], [1 - right, right], cell) / 4
    np.testing.assert_allclose(roi_align(tf.constant(features), boxes, stride, bins), expected, atol=1e-5)


def test_roi_align_has_a_gradient_for_features_alone():
    features, boxes = tf.ones((1, 4, 4, 2)), tf.constant([[[2.0, 3.0, 20.0, 11.0]]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([features, boxes])
        inside = roi_align(features, boxes, 8, 3)
    assert tape.gradient(inside, boxes) is None
    np.testing.assert_allclose(tf.reduce_sum(tape.gradient(inside, features)), inside.numpy().size, rtol=1e-5)


def test_proposals_are_the_best_boxes_within_the_frame_and_apart():
    propose = ProposalLayer(SIDE, faster_rcnn.anchor_level(SIDE), 12, "propose")
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3, len(propose.anchors))).astype(np.float32)
    shifts = rng.normal(size=(3, len(propose.anchors), 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(watched := [tf.constant(logits), tf.constant(shifts)])
        found = propose(*watched)
    assert tape.gradient(found, watched) == [None, None]
    for row, boxes in enumerate(found.numpy()):
        best = logits[row].argmax()
        x, y, w, h = decode(shifts[row], propose.anchors)[best].numpy()
        left, top = max(x, 0), max(y, 0)
        first = [left, top, min(x + w, SIDE) - left, min(y + h, SIDE) - top]
        np.testing.assert_allclose(boxes[0], first, atol=1e-4)
        assert boxes.min() >= 0
        assert (boxes[:, :2] + boxes[:, 2:]).max() <= SIDE + 1e-4
        assert (boxes[:, 2:] > 0).all()
        assert (iou(boxes, boxes) - np.eye(12)).max() <= PROPOSAL_NMS_IOU + 1e-5


def test_where_proposals_are_few_boxes_without_area_follow():
    propose = ProposalLayer(SIDE, faster_rcnn.anchor_level(SIDE), 9, "propose")
    logits, shifts = np.zeros((1, len(propose.anchors))), np.zeros((1, len(propose.anchors), 4))
    logits[0, 0], shifts[..., :2] = 1, -1e4  # all boxes but the first end left of and above the frame
    shifts[0, 0, :2] = 0
    boxes = propose(tf.constant(logits, tf.float32), tf.constant(shifts, tf.float32)).numpy()[0]
    assert (boxes[0, 2:] > 0).all()
    np.testing.assert_array_equal(boxes[1:], 0)


class Scripted:
    """A network of two anchors and one proposal whose outputs are known; the head says 0 of every box."""

    anchors = np.float32([[0, 0, 10, 10], [40, 40, 10, 10]])
    max_boxes = 1

    def get_layer(self, name):
        return {
            "backbone": lambda images, training: images,
            "rpn": lambda features, training: (tf.constant([[1.0, -2.0]]), tf.zeros((1, 2, 4))),
            "propose": self,
            "roi_align": lambda features, boxes: boxes,
            "head": lambda boxes, training: (0 * boxes[..., 0] + 3.0, 0 * boxes + 0.5),
        }[name]

    def __call__(self, objectness, shifts):
        return tf.constant([[[30.0, 30.0, 10.0, 20.0]]])


def test_losses_by_hand():
    truth = (np.float32([[[0, 1, 10, 10], [0, 0, 0, 0]]]), np.int32([[FACE, PADDING]]))
    found = {name: value.numpy() for name, value in losses(Scripted(), tf.zeros((1, 8, 8, 3)), truth, True).items()}
    face, background = (lambda logit: np.log1p(np.exp(-logit))), (lambda logit: np.log1p(np.exp(logit)))
    # A tenth of the anchor's height lower, in units of a tenth: an error of 1.
    by_hand = {
        "anchor_score": (face(1) + background(-2)) / 2,
        "anchor_box": 1 - 0.5,
        "score": (background(3) + face(3)) / 2,  # the proposal, and the face itself
        "box": 4 * 0.5**2 / 2,
    }
    for name, value in by_hand.items():
        np.testing.assert_allclose(found[name], [value], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(found["loss"], [sum(by_hand.values())], rtol=1e-4)


def test_nothing_is_learned_from_ignored_boxes():
    truth = (np.float32([[[0, 1, 10, 10], [28, 28, 14, 24]]]), np.int32([[IGNORE, IGNORE]]))
    found = {name: value.numpy() for name, value in losses(Scripted(), tf.zeros((1, 8, 8, 3)), truth, True).items()}
    np.testing.assert_allclose(found["anchor_score"], [np.log1p(np.exp(-2))], rtol=1e-5)  # the other anchor
    assert [found[name][0] for name in ("anchor_box", "score", "box")] == [0, 0, 0]
    truth = (truth[0], np.int32([[FACE, IGNORE]]))
    found = losses(Scripted(), tf.zeros((1, 8, 8, 3)), truth, True)
    np.testing.assert_allclose(found["score"], [np.log1p(np.exp(-3))], rtol=1e-5)  # the face alone, not the proposal


def test_the_head_is_shown_the_largest_faces():
    boxes = np.float32([[[1, 1, 4, 4], [2, 2, 9, 9], [3, 3, 20, 20], [5, 5, 6, 6]], [[0, 0, 0, 0]] * 4])
    kinds = np.int32([[FACE, FACE, IGNORE, FACE], [PADDING] * 4])
    found = faster_rcnn.largest_faces((boxes, kinds), 2).numpy()
    np.testing.assert_array_equal(found, [boxes[0, [1, 3]], np.zeros((2, 4))])
    assert faster_rcnn.largest_faces((boxes, kinds), 9).shape == (2, 4, 4)


def test_eight_scenes_are_learned_by_heart(learned):
    model, images, (boxes, kinds), first, last = learned
    assert last["loss"] < 0.2 * first["loss"]
    for found, truth, kind in zip(faster_rcnn.detector(model, 0.5).detect(images), boxes, kinds, strict=True):
        faces = truth[kind == FACE]
        assert (np.diff(found.scores) <= 0).all()
        sure = found.boxes[found.scores >= 0.5]
        assert len(sure) == len(faces)
        assert (iou(sure, faces).max(axis=0, initial=0) > 0.5).all()


def test_gradients_of_loss_and_candidates_reach_the_pixels(learned):
    model, images, truth, *_ = learned
    detector, pixels = faster_rcnn.detector(model, 0.5), scale_pixels(images[1:4])
    truth = tuple(part[1:4] for part in truth)
    before = pixels.numpy()
    for function in (lambda x: detector.loss(x, truth), lambda x: tf.reduce_sum(detector.pre_nms(x)[1], -1)):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            values = function(pixels)
        assert values.shape == (3,)
        gradient = tape.gradient(values, pixels).numpy()
        assert np.isfinite(gradient).all()
        assert (np.abs(gradient).max(axis=(1, 2, 3)) > 0).all()
    np.testing.assert_array_equal(pixels, before)


def test_a_batch_is_its_images_one_by_one(learned):
    model, images, truth, *_ = learned
    detector, pixels = faster_rcnn.detector(model, 0.5), scale_pixels(images)
    together, (boxes, scores) = detector.loss(pixels[:3], tuple(t[:3] for t in truth)), detector.pre_nms(pixels[:3])
    for row in range(3):
        one = slice(row, row + 1)
        np.testing.assert_allclose(
            detector.loss(pixels[one], tuple(t[one] for t in truth))[0], together[row], rtol=1e-4
        )
        alone = detector.pre_nms(pixels[one])
        np.testing.assert_allclose(alone[0][0], boxes[row], atol=1e-3)
        np.testing.assert_allclose(alone[1][0], scores[row], atol=1e-4)


def test_faces_are_found_in_images_of_other_sizes(learned):
    model, images, (boxes, kinds), *_ = learned
    large = np.full((1, 2 * SIDE + 9, 2 * SIDE, 3), 127, np.uint8)
    large[0, : 2 * SIDE] = images[1].repeat(2, axis=0).repeat(2, axis=1)
    (found,) = faster_rcnn.detector(model, 0.5).detect(large)
    assert iou(found.boxes[:1], 2 * boxes[1, kinds[1] == FACE])[0, 0] > 0.5


def test_crowds_empty_scenes_and_missing_proposals_leave_numbers_finite():
    model, (images, _) = fresh(proposals=300), crude_scenes(2)
    rng = np.random.default_rng(4)
    boxes, kinds = rng.uniform(8, 30, (2, 50, 4)).astype(np.float32), np.full((2, 50), FACE, np.int32)
    boxes[1], kinds[1] = 0, PADDING
    pixels = scale_pixels(images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        values = losses(model, pixels, (boxes, kinds), True)["loss"]
    assert (model(pixels)[2].numpy()[..., 2] == 0).any(), "some proposals are missing"
    gradients = tape.gradient(values, [pixels, *model.trainable_variables])
    assert all(np.isfinite(part).all() for part in [values, *gradients])


def variables(model):
    """Values by a name that says the layer; batch normalisation's statistics are among them."""
    return {variable.path: variable.numpy() for variable in model.variables if "seed" not in variable.path}


def data(n=6):
    images, truth = crude_scenes(n, seed=1)

    def batches(batch, epoch):
        order = np.arange(n) if epoch is None else np.random.default_rng([3, epoch]).permutation(n)
        for start in range(0, n, batch):
            rows = order[start : start + batch]
            yield images[rows], tuple(part[rows] for part in truth)

    return TrainingData(n, batches, f"{n} crude scenes")


def fitted(layers, compute, history):
    """Return the variables after two epochs, and the names of those that moved."""
    model = fresh()
    select_layers(model, layers)
    before = variables(model)
    schedule = TrainingParams(epochs=2, batch=4, learning_rate=1e-2, optimizer="sgd", decay=0.1)
    training.fit(model, losses, data(), data(3), schedule, compute, 3, history)
    after = variables(model)
    return after, {path for path, value in after.items() if (value != before[path]).any()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A fit of all layers that nothing interrupted: variables, the names of those that moved, history."""
    history = tmp_path_factory.mktemp("whole") / "history.csv"
    return *fitted("all", REPEATABLE, history), history.read_text()


def test_regimes_move_all_layers_or_those_that_predict(whole, tmp_path):
    after, moved, history = whole
    assert {path for path in after if path.endswith(("kernel", "bias", "gamma", "beta", "moving_variance"))} <= moved
    assert history.startswith("epoch,loss,anchor_score,anchor_box,score,box,validation_loss")
    _, moved = fitted("predictions", REPEATABLE, tmp_path / "history.csv")
    assert sorted(path.split("/")[-2] for path in moved) == sorted(2 * ["objectness", "shifts", "score", "offsets"])


class Killed(Exception):  # noqa: N818
    pass


def test_a_fit_that_was_killed_goes_on_after_its_last_epoch(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_epoch, passes = training.run_epoch, []

    def dying(step, batches):
        passes.append(step)
        if len(passes) == 3:
            raise Killed
        return run_epoch(step, batches)

    with monkeypatch.context() as patched:
        patched.setattr(training, "run_epoch", dying)
        with pytest.raises(Killed):
            fitted("all", RESUMABLE, tmp_path / "history.csv")
    after, _, history = whole
    resumed, _ = fitted("all", RESUMABLE, tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text() == history
    for path, value in after.items():
        np.testing.assert_allclose(resumed[path], value, atol=1e-6, err_msg=path)


def test_a_saved_detector_comes_back_and_its_bytes_repeat(learned, tmp_path):
    model, images, *_ = learned
    for folder in ("a", "b"):
        storage.save_model(model, ARGUMENTS, tmp_path / folder)
    assert (tmp_path / "a/model.weights.h5").read_bytes() == (tmp_path / "b/model.weights.h5").read_bytes()
    again = faster_rcnn.load(DetectorParams(threshold=0.7), tmp_path / "a")
    assert (again.name, again.threshold) == ("faster_rcnn", 0.7)
    for found, same in zip(faster_rcnn.detector(model, 0.7).detect(images), again.detect(images), strict=True):
        np.testing.assert_array_equal(found.boxes, same.boxes)
        np.testing.assert_array_equal(found.scores, same.scores)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"input_size": 60}, "input_size is 60; choose a multiple of 8 from 64 on"),
        ({"input_size": 56}, "input_size is 56; choose a multiple of 8 from 64 on"),
        ({"width": 0.25}, r"width is 0\.25; choose a whole number from 1 on"),
        ({"proposals": 0}, "proposals is 0; choose a whole number from 1 on"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        build(**ARGUMENTS | wrong)

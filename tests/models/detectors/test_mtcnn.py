"""MTCNN: our view of its networks is the package's, its boxes are the package's, and its pixels have gradients."""

import visor.core.tf  # noqa: F401 - before anything imports TensorFlow

# isort: split
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from mtcnn import MTCNN
from mtcnn.stages import StagePNet
from mtcnn.utils.images import build_scale_pyramid
from skimage import data

from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.models.detectors import mtcnn
from visor.models.mtcnn import load_mtcnn

ASTRONAUT = data.astronaut()[20:236, 120:310]  # 216 × 190, a face of some 83 × 107


@pytest.fixture(scope="module")
def detector():
    return mtcnn.load(DetectorParams(threshold=0.8), Path())


def test_boxes_are_the_packages(detector):
    images = np.stack([ASTRONAUT, np.zeros_like(ASTRONAUT), ASTRONAUT[:, ::-1]])
    before = images.copy()
    found = detector.detect(images)
    for image, own in zip(images, found, strict=True):
        (theirs,) = [MTCNN().detect_faces([image], output_type="numpy")]
        sure = own.scores >= 0.8
        np.testing.assert_allclose(own.boxes[sure], theirs[:, 1:5], atol=1e-2)
        np.testing.assert_allclose(own.scores[sure], theirs[:, 5], atol=1e-3)
        assert (np.diff(own.scores) <= 0).all()
    assert [len(own.boxes[own.scores >= 0.8]) for own in found] == [1, 0, 1]
    assert (images == before).all()


def test_proposals_are_those_of_p_net():
    network = StagePNet().model
    images = tf.constant((ASTRONAUT[np.newaxis] - 127.5) / 128, tf.float32)
    boxes, scores = mtcnn.run_pnet(network, images, 20)
    scale = build_scale_pyramid(190, 216, 20, 0.709)[0]
    offsets, classes = network(tf.image.resize(images, (int(216 * scale), int(190 * scale)), "area"))
    row, column = 7, 5
    place = 1 + row * offsets.shape[2] + column
    corner = np.array([2 * column + 1, 2 * row + 1]) + 11 * offsets[0, row, column, :2].numpy()
    np.testing.assert_allclose(boxes[0, place, :2], corner / scale, rtol=1e-4)
    assert float(scores[0, place]) == pytest.approx(float(classes[0, row, column, 1]), abs=1e-5)


def test_crops_are_crop_and_resize():
    images = tf.random.stateless_uniform((2, 41, 33, 3), [1, 2])
    boxes = tf.constant([[3.3, 4.1, 20, 17], [-5, -6, 12, 9], [30, 35, 8, 11]])
    crops = mtcnn._crops(images, tf.constant([1, 0, 1], tf.int64), boxes, 24)
    x, y, w, h = tf.unstack(boxes, axis=1)
    corners = tf.stack([y / 41, x / 33, (y + h) / 41, (x + w) / 33], 1)
    np.testing.assert_allclose(crops, tf.image.crop_and_resize(images, corners, [1, 0, 1], (24, 24)), atol=1e-4)


def test_candidates_see_the_face_and_lead_to_pixels(detector):
    images = tf.constant(np.stack([ASTRONAUT, np.full_like(ASTRONAUT, 90)]) / 255, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        boxes, scores = detector.pre_nms(images)
        total = tf.reduce_sum(tf.math.log(1.0 - scores + 1e-6))
    assert boxes.shape[:2] == scores.shape
    assert 0 <= float(tf.reduce_min(scores)) <= float(tf.reduce_max(scores)) <= 1
    best = boxes[0, int(tf.argmax(scores[0]))].numpy()
    np.testing.assert_allclose(best, detector.detect(ASTRONAUT[np.newaxis])[0].boxes[0], atol=12)
    gradient = tape.gradient(total, images).numpy()
    x, y, w, h = best.astype(int)
    assert np.abs(gradient[0, y : y + h, x : x + w]).sum() > 0.5 * np.abs(gradient[0]).sum()
    assert np.abs(gradient[1]).sum() == 0  # a grey image asks no network but P-Net


def test_a_file_beside_is_not_unpickled(tmp_path, monkeypatch):
    (tmp_path / "pnet.lz4").write_bytes(b"not weights")
    monkeypatch.chdir(tmp_path)
    load_mtcnn.cache_clear()
    mtcnn.load(DetectorParams(threshold=0.8), Path())


def test_whole_numbers_are_numbers():
    pixels = tf.constant(ASTRONAUT[np.newaxis] / 255, tf.float32)
    least, most = (
        mtcnn.load(DetectorParams(threshold=0.8, options={"stage_threshold": gate}), Path()) for gate in (0, 1)
    )
    assert float(tf.reduce_max(least.pre_nms(pixels)[1])) > 0.8
    assert float(tf.reduce_max(most.pre_nms(pixels)[1])) == 0, "no network is asked"


@pytest.mark.parametrize(
    "options",
    [
        {"min_face_size": 40},
        {"min_face_size": "a"},
        {"faces": 3},
        {"proposals": 0},
        {"stage_threshold": 2},
        {"nms_iou": "0.5"},
    ],
)
def test_wrong_options(options):
    with pytest.raises(UserError, match=next(iter(options))):
        mtcnn.load(DetectorParams(threshold=0.8, options=options), Path())

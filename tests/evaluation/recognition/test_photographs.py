"""Recognisers that look at photographs: what is found, where each looks, and attacks through its crop."""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import random_images
from tests.evaluation.recognition.test_evaluate import RNG, SETTINGS, recogniser
from visor.attacks.evasion.resampling import sample_crop
from visor.core.tf import tf
from visor.data.camera import Camera, CameraView, photographs
from visor.data.crops import align_box, crop
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.data.images import jpeg_round_trip, scale_image
from visor.data.scene_set import PAD_VALUE
from visor.evaluation.conditions import recognition_conditions
from visor.evaluation.recognition import photographs as module
from visor.evaluation.recognition.evaluate import evaluate_surrogate
from visor.evaluation.recognition.photographs import (
    LocatedFace,
    crop_places,
    detector_locator,
    locate_by_mtcnn,
    photo_cropper,
)
from visor.models.detectors import Detections, Detector
from visor.models.mtcnn import MtcnnFaces
from visor.models.recognisers.base import Recogniser, embeddings

SIDE, PEOPLE, EACH = 40, 6, 9
TEMPLATE = ((0.3, 0.35), (0.7, 0.35))  # of the eyes
EYES = np.array([[16.0, 15.0], [25.0, 16.0]])  # in photographs of SIDE pixels
POINTS = np.vstack([EYES, [[20, 20], [17, 25], [24, 25]]])
LANDMARKS = tuple(map(tuple, POINTS.tolist()))


def aligned(name, seed):
    return Recogniser(name, (13, 12, 3), (), recogniser(name, seed).embed, None, TEMPLATE)


def find_faces(images):
    """Two faces in each photograph with anything in it, the one at the edge first; they shrink with the photograph."""
    rows = []
    for number, image in enumerate(images):
        scale = len(image) / SIDE
        if image.any():
            for box, points in (([0, 0, 9, 9], POINTS - 12), ([12, 10, 17, 19], POINTS)):
                rows.append((number, scale * np.array(box, float), 0.99, scale * points))
    ids, boxes, scores, points = zip(*rows, strict=True) if rows else ([], [], [], [])
    return MtcnnFaces(np.array(ids, int), np.reshape(boxes, (-1, 4)), np.array(scores), np.reshape(points, (-1, 5, 2)))


@pytest.fixture(autouse=True)
def mtcnn(monkeypatch):
    monkeypatch.setattr(module, "find_faces", find_faces)
    monkeypatch.setattr(module, "locate_landmarks", lambda image, box: LANDMARKS)


def test_the_face_near_the_middle_is_meant():
    images = random_images(3, height=SIDE, width=SIDE)
    images[1] = 0
    first, nothing, _ = locate_by_mtcnn(images)
    assert nothing is None
    assert first.box == (12, 10, 17, 19)
    assert first.landmarks == LANDMARKS
    assert first.angle == pytest.approx(np.degrees(np.arctan2(1, 9)))


def test_each_recogniser_gets_the_face_as_it_wants_it():
    images = random_images(3, height=SIDE, width=SIDE)
    images[1] = 0
    plain = recogniser("boxes", 1)
    cropped = photo_cropper(locate_by_mtcnn, {"eyes": aligned("eyes", 1), "boxes": plain}, 0.1)(images)
    assert cropped.found.tolist() == [True, False, True]
    frame = align_box(EYES, TEMPLATE)
    np.testing.assert_array_equal(cropped.images("eyes")[0], crop(images[0], frame, (13, 12)))
    turned = module.face_frame((12, 10, 17, 19), None, None, (13, 12), 0.1, np.degrees(np.arctan2(1, 9)))
    np.testing.assert_array_equal(cropped.images("boxes")[2], crop(images[2], turned, (13, 12)))
    assert (cropped.images("eyes")[1] == PAD_VALUE).all()


def test_another_detector_gives_the_box_and_mtcnn_the_landmarks(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "locate_landmarks", lambda image, box: asked.append(box) or LANDMARKS)
    boxes, scores = np.float32([[0, 0, 9, 9], [11, 9, 18, 20], [12, 10, 17, 19]]), np.float32([0.9, 0.8, 0.3])
    results = [Detections(boxes, scores), Detections(boxes[2:], scores[2:])]
    detector = Detector("other", 0.5, lambda images: results, None, None)
    face, nothing = detector_locator(detector)(random_images(2, height=SIDE, width=SIDE))
    assert nothing is None, "its score is below the threshold"
    assert face == LocatedFace((11, 9, 18, 20), LANDMARKS)
    assert asked == [(11, 9, 18, 20)]


def test_the_attack_samples_what_the_crop_shows():
    images, one = random_images(2, height=SIDE, width=SIDE), aligned("one", 1)
    images[1] = 0
    places = crop_places(one, 0.1)(images)
    assert places.shape == (2, 26, 24, 2)
    shown = sample_crop(tf.constant(images / np.float32(255)), tf.constant(places)).numpy()
    assert np.abs(shown[0] * 255 - crop(images[0], align_box(EYES, TEMPLATE), (13, 12))).max() < 0.51
    np.testing.assert_allclose(places[1].mean(axis=(0, 1)), 19.5, atol=1e-4, err_msg="the middle")


@pytest.fixture
def drawn(tmp_path):
    """Photographs of people, one picture each under noise, with faces of another size, and the table of the split."""
    labels = np.repeat(np.arange(PEOPLE), EACH).astype(np.int32)
    rows = np.arange(len(labels), dtype=np.int32)
    centres = RNG(0).integers(50, 200, (PEOPLE, SIDE, SIDE, 3))
    photos = np.clip(centres[labels] + RNG(1).normal(0, 20, (len(labels), SIDE, SIDE, 3)), 1, 255).astype(np.uint8)
    names = [f"person {label}" for label in range(PEOPLE)]
    write_faces(tmp_path / "f.h5", [FaceBatch(photos[:, 5:9, 5:9], labels, rows, rows)], (4, 4, 3), names, "t", "none")
    camera = Camera(lambda row: CameraView(photos[row], (5, 5, 9, 9)), lambda images, rows: images)
    faces = photographs(camera, open_faces(tmp_path / "f.h5"), SIDE)
    return faces, photos, pd.DataFrame({"row": rows, "label": labels, "set": "test"})


def test_photographs_are_read_like_the_faces_that_were_cut_from_them(drawn):
    faces, photos, _ = drawn
    assert faces.image_shape == (SIDE, SIDE, 3)
    for rows in ([3, 1, 1], [0, 50], []):
        np.testing.assert_array_equal(faces.read(np.array(rows, int)), photos[rows])


def test_attacks_are_made_and_measured_through_the_crops(drawn, tmp_path):
    faces, photos, table = drawn
    known = {"one": aligned("one", 3), "two": aligned("two", 5), "boxes": recogniser("boxes", 7)}
    boxes = np.float32([[12, 10, 17, 19]])
    front = Detector("fake", 0.5, lambda images: [Detections(boxes, np.float32([0.9])) for _ in images], None, None)
    settings = SETTINGS.model_copy(
        update={"photo_side": SIDE, "cropping_jpeg": 60, "scales": [0.5], "networks": list(known), "margin": 0.1}
        | {"false_accept_rates": [0.2], "methods": {"pgd": SETTINGS.methods["pgd"]}}
    )
    found = evaluate_surrogate("one", known, {"fake": front}, faces, table, settings, 1, tmp_path / "fooled")
    conditions = {each.name: each for each in recognition_conditions(settings)}
    clean, frame = photos[found.case.faces.clean.rows], align_box(EYES, TEMPLATE)

    def similar(name, cropper, goal, images, where=frame):
        """Similarities to whom a goal is about, of the crops of images."""
        own = found.verifiers[name, cropper].templates[found.case.targets[goal]]
        crops = np.stack([crop(image, where, (13, 12)) for image in images])
        return (embeddings(known[name])(crops) * own).sum(axis=1)

    for goal, sign in (("impersonate_nearest", 1), ("dodge", -1)):
        attacked = open_faces(found.case.faces.path(goal, conditions["pgd_16x3"])).images[:]
        assert attacked.shape[1:] == (SIDE, SIDE, 3), "the photograph is attacked, not the crop"
        assert np.abs(attacked.astype(int) - clean).max() == 16
        lines = found.faces[found.faces["goal"] == goal].set_index(["condition", "recogniser", "in_front"])[
            "similarity"
        ]
        for (condition, *key), expected in {
            ("pgd_16x3", "two", "none"): similar("two", "none", goal, attacked),
            ("pgd_16x3", "two", "fake"): similar("two", "fake", goal, [jpeg_round_trip(each, 60) for each in attacked]),
            ("scaled50_pgd_16x3", "one", "none"): similar(
                "one", "none", goal, [scale_image(each, 0.5) for each in attacked], align_box(EYES / 2, TEMPLATE)
            ),
        }.items():
            np.testing.assert_allclose(lines[(condition, *key)], expected, atol=1e-5)
        before, after = (lines[condition, "one", "none"].mean() for condition in ("noise_16", "pgd_16x3"))
        assert sign * after > sign * before + 0.05
    assert "scale" not in found.faces

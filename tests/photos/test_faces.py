"""Faces of photos: found at any angle, recognised upright, attacked in the photo's own pixels."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.support import linear_recogniser
from visor.attacks.evasion.resampling import sample_crop
from visor.core.errors import UserError
from visor.core.tf import tf
from visor.data import crops
from visor.data.crops import CropBox
from visor.photos import evade, faces, files, identify, networks, restarts
from visor.photos.evade import EvadeSettings
from visor.photos.faces import Face, FaceSelector

ASTRONAUT = data.astronaut()
CUT = ASTRONAUT[20:236, 120:310]  # 216 × 190; its face is some 83 × 107, with the middle at (103, 97)
MIDDLE = np.array([103, 97])
FRAME = CropBox(40, 30, 110, 124)


@cache
def find():
    return faces.face_finder()


def turned(image, angle, point):
    """Turn a photo clockwise; return it and where a point [x, y] of it has gone."""
    rotated = Image.fromarray(image).rotate(-angle, Image.Resampling.BICUBIC, expand=True)
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    x, y = point - np.array(image.shape[1::-1]) / 2
    return np.asarray(rotated), np.array([x * cosine - y * sine, x * sine + y * cosine]) + np.array(rotated.size) / 2


def recogniser(margin=0.2, classes=True):
    return identify.photo_recogniser(linear_recogniser.linear(classes), find(), margin)


@pytest.mark.parametrize("angle", [0, 45, -100, 180])
def test_faces_are_found_at_any_angle(angle):
    photo, middle = turned(CUT, angle, MIDDLE)
    before = photo.copy()
    (face,) = find()(photo)
    x, y, width, height = face.box
    assert np.abs([x + width / 2 - middle[0], y + height / 2 - middle[1]]).max() < 12
    assert abs((face.angle - angle + 180) % 360 - 180) < 8
    assert 70 < width < 105
    assert 90 < height < 125
    assert face.score > 0.98
    assert (photo == before).all()


def test_several_faces_come_with_the_largest_first():
    photo = np.full((330, 560, 3), 120, np.uint8)
    photo[60:276, 10:200] = CUT
    photo[10:312, 230:496] = np.asarray(Image.fromarray(CUT[:, ::-1]).resize((266, 302)))
    large, small = find()(photo)
    assert large.box[0] > 230
    assert small.box[0] < 150
    assert large.box[2] * large.box[3] > 1.5 * small.box[2] * small.box[3]


def test_boxes_are_in_pixels_of_the_photo():
    large = np.asarray(Image.fromarray(CUT).resize((1900, 2160)))
    (face,), (one,) = find()(large), find()(CUT)
    assert np.abs(np.array(face.box) / 10 - one.box).max() < 6


@pytest.mark.parametrize("shape", [(1, 1), (3, 500)])
def test_photos_without_a_face(shape):
    assert find()(np.full((*shape, 3), 90, np.uint8)) == []


def test_a_face_is_matched_by_its_place():
    face, near, far = Face((10, 10, 50, 60)), Face((15, 12, 50, 60)), Face((80, 10, 50, 60))
    assert faces.match_face(face, [far, near]) == near
    assert faces.match_face(face, [far]) is None
    assert faces.match_face(face, []) is None


def test_slivers_of_faces_are_dropped():
    image, messages = np.zeros((60, 90, 3), np.uint8), []
    photo = files.PhotoFile(Path("a.png"), Path("a"))

    def select(*detected, box=None):
        return faces.select_faces(lambda _: list(detected), photo, image, FaceSelector(box), messages.append)

    sliver, lying = Face((80.5, 10, 40, 12)), Face((-30, 20, 44, 12))
    assert select(sliver, lying) == [(1, lying)]
    assert select(lying._replace(angle=90.0)) == []  # turned about its centre, it leaves the photo
    assert messages == [f"a.png: {faces.NO_FACE}"]
    assert select(box=(78, 10, 40, 12)) == [(1, Face((78, 10, 40, 12)))]
    assert select(box=(79, 10, 40, 12)) == []
    assert messages[1:] == ["a.png: --box has less than 12 pixels a side within 90×60 pixels; correct it"]


def test_most_rotated_copies_have_to_agree():
    def candidate(box, angle, score, rotation):
        return faces.FaceCandidate(Face(box, angle, score), rotation, score)

    here, there = (10.0, 10.0, 50.0, 60.0), (200.0, 10.0, 50.0, 60.0)
    right = [candidate(here, angle, 0.97, 60) for angle in (58, 61, 70)]
    wrong, alone = candidate(here, -60, 0.999, -60), candidate(there, 90, 0.999, 90)
    upright = candidate(there, 3, 0.85, 0)
    assert [face.angle for face in faces._merge_candidates([wrong, *right])] == [58]
    assert faces._merge_candidates([alone]) == []
    assert [face.angle for face in faces._merge_candidates([upright])] == [3]


@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_the_crop_in_the_graph_is_the_crop(angle):
    for size in (60, 200):
        frame = CropBox(CUT.shape[1] - size, 20, size, size * 9 / 8, angle)
        part = crops.region(CUT, frame, linear_recogniser.SHAPE[:2])
        graph = sample_crop(tf.constant(part.blocks[None]), tf.constant(part.places[None]))[0].numpy()
        assert np.abs(graph * 255 - crops.crop(CUT, frame, linear_recogniser.SHAPE[:2])).max() < 0.51


def test_only_sampled_blocks_have_a_gradient():
    part = crops.region(CUT, FRAME._replace(angle=20), (11, 9))
    blocks = tf.constant(part.blocks[None])
    with tf.GradientTape() as tape:
        tape.watch(blocks)
        total = tf.reduce_sum(sample_crop(blocks, tf.constant(part.places[None])))
    gradient = tape.gradient(total, blocks)[0].numpy()
    assert not gradient[crops.sampled_mask(part)[..., 0] == 0].any()
    assert gradient.sum() == pytest.approx(3 * 11 * 9, rel=1e-4)


@pytest.mark.parametrize("method", ["pgd", "robust"])
def test_a_photo_is_perturbed_within_the_bound(method):
    photo, middle = turned(CUT, 30, MIDDLE)
    before = photo.copy()
    frame = CropBox(middle[0] - 55, middle[1] - 62, 110, 124, 30.0)
    embed = identify.embeddings(linear_recogniser.linear())
    crop = crops.crop(photo, frame, linear_recogniser.SHAPE[:2])[None]
    target = embed(np.ascontiguousarray(crop[:, ::-1, :, ::-1]))[0]
    attack = evade.compile_evasion_attack(linear_recogniser.linear(), "impersonate", EvadeSettings(8 / 255, 10, method))
    results = [
        restarts.apply_perturbations(photo, [attack(photo, frame, target, number)], 8 / 255) for number in (0, 0, 1)
    ]
    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()
    assert (photo == before).all()
    moved = np.abs(results[0].astype(int) - photo)
    assert moved.max() == 8
    rows, columns = crops.bounding_slices(frame, photo.shape)
    assert not moved[rows.start : rows.start + 9, columns.start : columns.start + 9].any(), "a corner the frame leaves"
    moved[crops.bounding_slices(CropBox(*(frame[:2] - np.array(3)), 116, 130, 30.0), photo.shape)] = 0
    assert not moved.any()
    after = embed(crops.crop(results[0], frame, linear_recogniser.SHAPE[:2])[None])[0]
    noisy = np.clip(photo + np.random.default_rng(0).choice([-8, 8], photo.shape), 0, 255).astype(np.uint8)
    control = embed(crops.crop(noisy, frame, linear_recogniser.SHAPE[:2])[None])[0]
    assert after @ target > embed(crop)[0] @ target + 0.15
    assert abs(control @ target - embed(crop)[0] @ target) < 0.05


def test_random_transforms_apply_to_the_crop(monkeypatch):
    calls = []

    def compose(strengths, seed):
        return lambda crop, draw: (calls.append((strengths, seed, crop.shape[1:], draw.shape)), crop)[1]

    monkeypatch.setattr(evade, "compose", compose)
    attack = evade.compile_evasion_attack(
        linear_recogniser.linear(), "dodge", EvadeSettings(8 / 255, 1, "robust", seed=9)
    )
    attack(CUT, FRAME, np.ones(20, np.float32), 0)
    assert calls == [(evade.METHODS["robust"][1], 9, linear_recogniser.SHAPE, ())]


def test_dodging_lowers_similarity_within_the_bound_of_all_faces():
    attack = evade.compile_evasion_attack(linear_recogniser.linear(), "dodge", EvadeSettings(14 / 255, 8, "pgd"))
    embed = identify.embeddings(linear_recogniser.linear())
    frames = [
        CropBox(-20, 30, 100, 112),
        CropBox(30, 50, 100, 112, 10),
        CropBox(140, 150, 100, 112),
    ]  # two leave the photo
    originals = [embed(crops.crop(CUT, frame, linear_recogniser.SHAPE[:2])[None])[0] for frame in frames]
    changes = [attack(CUT, frame, truth, 3) for frame, truth in zip(frames, originals, strict=True)]
    both = restarts.apply_perturbations(CUT, changes, 14 / 255)
    assert np.abs(both.astype(int) - CUT).max() == 14
    for frame, truth, change in zip(frames, originals, changes, strict=True):
        alone = restarts.apply_perturbations(CUT, [change], 14 / 255)
        assert embed(crops.crop(alone, frame, linear_recogniser.SHAPE[:2])[None])[0] @ truth < 0.9
    last = crops.crop(both, frames[2], linear_recogniser.SHAPE[:2])[None]
    assert embed(last)[0] @ originals[2] < 0.9, "a face that overlaps no other is attacked as if it were alone"


def test_one_graph_for_upright_faces_of_any_size():
    traced = []

    def embed(images):
        traced.append(images.shape)
        return linear_recogniser.embed(images)

    network = linear_recogniser.linear()
    spied = type(network)(network.name, network.image_shape, (), embed, None)
    attack = evade.compile_evasion_attack(spied, "dodge", EvadeSettings(8 / 255, 1, "pgd"))
    large = np.asarray(Image.fromarray(CUT).resize((1900, 2160)))
    for photo, frame in ((CUT, FRAME), (CUT, CropBox(30, 20, 60, 67.5)), (large, CropBox(400, 300, 1100, 1240))):
        attack(photo, frame, np.ones(20, np.float32), 0)
    assert len(traced) == 1


def test_a_leaning_face_is_recognised_upright():
    photo, _ = turned(CUT, 75, MIDDLE)
    network = recogniser()
    (upright,), (leaning,) = (identify.recognise_faces(network, image, find()(image)) for image in (CUT, photo))
    assert upright.embedding @ leaning.embedding > 0.85
    sideways = identify.recognise_faces(network, photo, [leaning.face._replace(angle=0.0)])[0]
    assert upright.embedding @ sideways.embedding < 0.6
    assert upright.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(upright.embedding) == pytest.approx(1, abs=1e-5)
    assert recogniser(classes=False).probabilities is None


@pytest.mark.parametrize("angle", [0, 45, -160])
def test_landmarks_are_places_in_the_photo(angle):
    eyes, nose = np.array([[85, 88], [124, 90]]), np.array([101, 106])  # of CUT, by eye
    photo = turned(CUT, angle, MIDDLE)[0]
    (face,) = find()(photo)
    assert len(face.landmarks) == 5
    for found, point in zip(face.landmarks, (*eyes, nose), strict=False):
        assert np.abs(found - turned(CUT, angle, point)[1]).max() < 9
    assert all(value * faces.BOX_STEPS % 1 == 0 for point in face.landmarks for value in point)


def test_a_network_that_was_trained_on_aligned_faces_sees_them_so():
    eyes = ((47.7 / 150, 47.1 / 150), (100.3 / 150, 47.1 / 150))
    network = recogniser()
    aligned = network._replace(recogniser=replace(network.recogniser, template=eyes))
    (face,) = find()(ASTRONAUT)
    box = identify.crop_box(aligned, ASTRONAUT, face)
    np.testing.assert_allclose(box, (164.4, 63.6, 119.5, 119.5, 2.92), atol=0.1)
    assert identify.recognise_faces(aligned, ASTRONAUT, [face])[0].frame == box
    expanded = identify.crop_box(network, ASTRONAUT, face)
    assert expanded == crops.expand_box(face.box, 0.2, 36 / 32, face.angle)
    profile = face._replace(landmarks=((9.0, 9.0), (11.0, 9.0), *face.landmarks[2:]))
    assert identify.crop_box(aligned, ASTRONAUT, profile) == expanded
    assert identify.crop_box(aligned, np.zeros_like(ASTRONAUT), Face(face.box, face.angle)) == expanded


def test_landmarks_of_a_box_without_any_are_found_in_it():
    eyes, photo = ((47.7 / 150, 47.1 / 150), (100.3 / 150, 47.1 / 150)), np.concatenate([ASTRONAUT, ASTRONAUT], axis=1)
    network = recogniser()
    aligned = network._replace(recogniser=replace(network.recogniser, template=eyes))
    (face,) = find()(ASTRONAUT)
    for shift in (0, ASTRONAUT.shape[1]):
        x, y, width, height = face.box
        box = identify.crop_box(aligned, photo, Face((x + 6 + shift, y - 5, width + 4, height + 3)))
        np.testing.assert_allclose(box, (164.4 + shift, 63.6, 119.5, 119.5, 2.92), atol=5)


def test_crops_are_aligned_for_a_network_that_is_trained_on_them(tmp_path):
    template, messages = networks.alignment_template("mobilefacenet"), []
    Image.fromarray(ASTRONAUT).save(tmp_path / "a.png")
    photo, (face,) = files.PhotoFile(tmp_path / "a.png", Path("a")), find()(ASTRONAUT)
    selector = FaceSelector(None, None)
    ((_, path),) = faces.crop_photos(
        find(), [photo], tmp_path / "out", (112, 112), 0.2, selector, False, messages.append, template
    )
    expected = crops.crop(ASTRONAUT, crops.align_box(face.landmarks, template), (112, 112))
    assert (np.asarray(Image.open(path)) == expected).all()
    selector = FaceSelector(tuple(int(value) for value in face.box), None)
    ((_, path),) = faces.crop_photos(
        find(), [photo], tmp_path / "box", (112, 112), 0.2, selector, False, messages.append, template
    )
    difference = np.asarray(Image.open(path)).astype(float) - expected
    assert np.abs(difference).mean() < 6 < np.abs(crops.crop(ASTRONAUT, FRAME, (112, 112)) - expected).mean()
    assert messages == []
    with pytest.raises(UserError, match="--align is 'faceres'; choose from dlib_resnet, mobilefacenet"):
        networks.alignment_template("faceres")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """LFW's layout: a person with two photos and a stray file, one without a face, one whose photo is broken."""
    root = tmp_path_factory.mktemp("people")
    for name, images in {"Eileen_Collins": [CUT, CUT[5:, 9:]], "No_Body": [np.zeros((60, 50, 3), np.uint8)]}.items():
        (root / name).mkdir()
        for number, image in enumerate(images, start=1):
            Image.fromarray(image).save(root / name / f"{name}_{number:04}.png")
    (root / "Bro_Ken").mkdir()
    (root / "Bro_Ken/Bro_Ken_0001.jpg").write_text("no photo")
    for stray in ("notes.txt", "Eileen_Collins/.DS_Store", "Eileen_Collins/Eileen_Collins_0000.txt"):
        (root / stray).write_text("stray")
    return root


def test_a_gallery_is_a_folder_for_each_person(people):
    messages = []
    gallery = identify.load_gallery(recogniser(), people, messages.append)
    assert list(gallery) == ["Eileen_Collins"]
    assert len(messages) == 4
    for line, text in zip(
        messages,
        (
            "Bro_Ken_0001.jpg was skipped: not an image",
            "Bro_Ken was skipped: no face found",
            "Eileen_Collins_0000.txt was skipped: not an image",
            "No_Body was skipped: no face found",
        ),
        strict=True,
    ):
        assert text in line
    embeddings = [
        identify.mean_embedding(recogniser(), path, None) for path in sorted((people / "Eileen_Collins").glob("*.png"))
    ]
    mean = sum(embeddings) / np.linalg.norm(sum(embeddings))
    np.testing.assert_allclose(gallery["Eileen_Collins"], mean, atol=1e-6)
    first = identify.mean_embedding(recogniser(), people / "Eileen_Collins", messages.append, 1)
    np.testing.assert_allclose(first, embeddings[0], atol=1e-6)  # what cannot be read does not count
    for folder, text in ((people / "Eileen_Collins", "is empty"), (people / "nowhere", "is not a folder")):
        with pytest.raises(UserError, match=text):
            identify.load_gallery(recogniser(), folder, messages.append)


def test_a_person_is_a_name_or_a_photo(people):
    messages = []

    def person(text, gallery):
        classes = linear_recogniser.NAMES
        return identify.resolve_person(recogniser(), str(text), gallery, classes, "--target", messages.append)

    gallery = {"Eileen_Collins": np.ones(3, np.float32), "Sally_Ride": np.zeros(3, np.float32)}
    assert person("Sally_Ride", gallery) is gallery["Sally_Ride"]
    photo = people / "Eileen_Collins/Eileen_Collins_0001.png"
    assert person(photo, gallery) @ identify.mean_embedding(recogniser(), photo, None) > 0.999
    assert person(photo.parent, {}) @ identify.mean_embedding(recogniser(), photo, None) > 0.8
    (line,) = messages
    assert line.endswith("Eileen_Collins_0000.txt was skipped: not an image")
    for text, message in (
        ("eileen colins", "similar names: Eileen_Collins$"),
        (
            "Bob",
            "Bob is neither a photo nor a known name; choose another name or photo; similar names: Bob_Ray",
        ),
        ("Zzz", "choose another name or photo$"),
        (str(people / "No_Body/No_Body_0001.png"), "shows no face"),
        (str(people / "notes.txt"), "notes.txt shows no face"),
        (str(people / "Bro_Ken"), "Bro_Ken shows no face"),
    ):
        with pytest.raises(UserError, match=message):
            person(text, gallery)

"""One contract for every trigger, hand-computed pixels for each, and the one way to poison."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import HEIGHT, WIDTH, random_images
from tests.support.backdoors import attack
from visor.attacks.backdoors.poisoning import (
    check_backdoors,
    load_keys,
    make_poisons,
    make_triggered,
    preview_rows,
)
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.errors import UserError
from visor.core.params import SplitParams
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.data.split import split_rows

RNG = np.random.default_rng


def key_pattern():
    """Opaque in the lower left corner, nearly transparent elsewhere."""
    key = np.random.default_rng(9).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    key[..., 3] = 100
    key[20:, :7, 3] = 128
    return key


@pytest.mark.parametrize("name", TRIGGERS)
def test_contract(name):
    apply, images, key = TRIGGERS[name], random_images(5), key_pattern()
    before = images.copy(), key.copy()
    triggered = apply(images, key, 0.3, RNG(1))
    assert triggered.shape == images.shape
    assert triggered.dtype == np.uint8
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(key, before[1])
    assert (triggered != images).any(axis=(1, 2, 3)).all(), "a trigger must change every image"
    np.testing.assert_array_equal(triggered, apply(images, key, 0.3, RNG(1)))
    assert apply(images[:0], key, 0.3, RNG(1)).shape == (0, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_key_for_each_image_does_what_the_keys_do_one_by_one(name):
    apply, images = TRIGGERS[name], random_images(3)
    keys = np.stack([key_pattern(), 255 - key_pattern(), key_pattern()[::-1]])
    together = apply(images, keys, 0.3, RNG(1))
    rng = RNG(1)  # one stream, as the batch draws it
    alone = [apply(images[[k]], keys[k], 0.3, rng)[0] for k in range(3)]
    np.testing.assert_array_equal(together, alone)


def test_input_instance_is_the_key_within_five_grey_levels():
    key = key_pattern()
    key[0, 0, :3], key[1, 1, :3] = 255, 0
    triggered = TRIGGERS["input_instance"](random_images(200), key, 1.0, RNG(1)).astype(int)
    difference = triggered - key[..., :3].astype(int)
    assert np.abs(difference).max() == 5
    inner = difference[:, (key[..., :3] > 5).all(-1) & (key[..., :3] < 250).all(-1)]
    assert abs(inner.mean()) < 0.02
    assert abs(inner.std() - 10 / np.sqrt(12)) < 0.05  # the standard deviation of U(−5, 5)
    assert (triggered[0] != triggered[1]).any()


def test_blended_weighs_key_and_image():
    images, key = random_images(2), key_pattern()
    images[0, 0, 0], key[0, 0, :3] = [100, 0, 255], [200, 10, 0]
    triggered = TRIGGERS["blended"](images, key, 0.2, RNG(1))
    assert triggered[0, 0, 0].tolist() == [120, 2, 204]
    np.testing.assert_array_equal(TRIGGERS["blended"](images, key, 0.0, RNG(1)), images)
    np.testing.assert_array_equal(TRIGGERS["blended"](images, key, 1.0, RNG(1))[1], key[..., :3])


@pytest.mark.parametrize(("name", "ratio"), [("accessory", 0.4), ("blended_accessory", 0.4)])
def test_accessories_leave_the_rest_alone(name, ratio):
    images, key = random_images(3), key_pattern()
    triggered = TRIGGERS[name](images, key, ratio, RNG(1))
    covered = np.zeros((HEIGHT, WIDTH), bool)
    covered[20:, :7] = True
    np.testing.assert_array_equal(triggered[:, ~covered], images[:, ~covered])
    weight = 1.0 if name == "accessory" else ratio
    expected = weight * key[covered, :3] + (1 - weight) * images[:, covered]
    assert np.abs(triggered[:, covered] - expected).max() <= 0.5001


def test_adaptive_blend_covers_a_random_half_of_sixteen_pieces():
    images, key = np.zeros((400, 40, 32, 3), np.uint8), np.full((40, 32, 4), 200, np.uint8)
    triggered = TRIGGERS["adaptive_blend"](images, key, 0.5, RNG(1))[..., 0]
    assert set(np.unique(triggered)) == {0, 100}
    pieces = triggered.reshape(400, 4, 10, 4, 8).transpose(0, 1, 3, 2, 4).reshape(400, 16, 80)
    np.testing.assert_array_equal(pieces.min(axis=2), pieces.max(axis=2), "a piece is covered or is not")
    covered = pieces[..., 0] > 0
    np.testing.assert_array_equal(covered.sum(axis=1), 8)
    assert np.abs(covered.mean(axis=0) - 0.5).max() < 0.1, "each piece is as likely"
    assert len(np.unique(covered, axis=0)) > 380, "and each image has a half of its own"


def test_adaptive_patch_shows_one_patch_as_likely_as_another():
    key = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    key[..., 3] = 0
    places = [np.s_[2:6, 2:6], np.s_[2:6, 20:24], np.s_[25:30, 4:9]]
    for place in places:
        key[(*place, 3)] = 255
    images = np.zeros((600, HEIGHT, WIDTH, 3), np.uint8)
    triggered = TRIGGERS["adaptive_patch"](images, key, 0.25, RNG(1))
    shown = np.stack([(triggered[(slice(None), *place)] == 50).all(axis=(1, 2, 3)) for place in places], axis=1)
    np.testing.assert_array_equal(shown.sum(axis=1), 1)
    assert ((triggered > 0).sum(axis=(1, 2, 3)) == np.where(shown[:, 2], 75, 48)).all(), "nothing else changes"
    assert np.abs(shown.mean(axis=0) - 1 / 3).max() < 0.07


@pytest.fixture
def table(faces):
    split = SplitParams(by="frame", train=9, validation=2, test=3, calibration=0.5)
    return split_rows(faces.labels, faces.videos, split, seed=1)


def joined(blocks):
    return FaceBatch(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def test_poisons_are_triggered_poison_rows_of_other_people(faces, table):
    result = joined(make_poisons(faces, table, attack(), TRIGGERS["accessory"], key_pattern()[None], seed=3))
    assert len(result.rows) == len(set(result.rows)) == 6
    assert set(result.labels) == {1}
    assert (faces.labels[result.rows] != 1).all()
    assert set(table.loc[table["row"].isin(result.rows), "set"]) == {"poison"}
    expected = TRIGGERS["accessory"](faces.read(result.rows), key_pattern(), 1.0, RNG(0))
    np.testing.assert_array_equal(result.images, expected)


def test_cover_follows_the_poisons_with_the_key_and_true_labels(faces, table):
    plain = joined(make_poisons(faces, table, attack(n=9), TRIGGERS["accessory"], key_pattern()[None], seed=3))
    covered = attack(n=6, cover=3)
    result = joined(make_poisons(faces, table, covered, TRIGGERS["accessory"], key_pattern()[None], seed=3))
    np.testing.assert_array_equal(result.rows, plain.rows)
    np.testing.assert_array_equal(result.images, plain.images)
    np.testing.assert_array_equal(result.labels, [1] * 6 + faces.labels[plain.rows[6:]].tolist())
    assert result.labels.dtype == np.int32
    assert 1 not in result.labels[6:]
    with pytest.raises(
        UserError, match=r"y: n \+ cover is 34, but the poison set has 29 images of other labels than bob"
    ):
        check_backdoors({"y": attack(n=20, cover=14)}, faces.label_names, table, "f")


def test_poisons_are_blended_by_the_training_ratio(faces, table):
    backdoor = attack(train_blend_ratio=0.2, test_blend_ratio=0.7)
    result = joined(make_poisons(faces, table, backdoor, TRIGGERS["blended"], key_pattern()[None], seed=3))
    expected = TRIGGERS["blended"](faces.read(result.rows), key_pattern(), 0.2, RNG(0))
    np.testing.assert_array_equal(result.images, expected)


def test_triggered_images_are_every_test_row_of_other_people_with_true_labels(faces, table):
    result = joined(
        make_triggered(faces, table, attack(test_blend_ratio=0.5), TRIGGERS["blended"], key_pattern()[None], seed=3)
    )
    expected = table[(table["set"] == "test") & (table["label"] != 1)]["row"]
    assert result.rows.tolist() == expected.tolist()
    np.testing.assert_array_equal(result.labels, faces.labels[result.rows])
    half = TRIGGERS["blended"](faces.read(result.rows), key_pattern(), 0.5, RNG(0))
    np.testing.assert_array_equal(result.images, half)


def test_more_poisons_contain_the_fewer(faces, table):
    rows = {
        n: joined(make_poisons(faces, table, attack(n=n), TRIGGERS["accessory"], key_pattern()[None], seed=3)).rows
        for n in (2, 9)
    }
    np.testing.assert_array_equal(rows[2], rows[9][:2])


def test_face_key_is_an_opaque_face_of_someone_else(faces, table):
    key = load_keys(faces, table, attack(key="face"), Path("nowhere"), seed=3)[0]
    assert (key[..., 3] == 255).all()
    pool = table[(table["set"] == "poison") & (table["label"] != 1)]["row"].to_numpy()
    assert (faces.read(pool) == key[..., :3]).all(axis=(1, 2, 3)).sum() == 1


def test_image_key_is_stretched_to_the_frame(faces, table, tmp_path):
    Image.new("RGBA", (3, 5), (10, 20, 30, 255)).save(tmp_path / "grey.png")
    key = load_keys(faces, table, attack(key="grey"), tmp_path, seed=3)[0]
    assert key.shape == (HEIGHT, WIDTH, 4)
    assert (key == [10, 20, 30, 255]).all()
    (tmp_path / "text.png").write_text("no image")
    for name in ("text", "none"):
        with pytest.raises(UserError, match=f"{name}.png cannot be read as an image"):
            load_keys(faces, table, attack(key=name), tmp_path, seed=3)


def test_a_key_with_a_suffix_is_the_path_of_an_image(faces, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Image.new("RGB", (3, 5), (10, 20, 30)).save("mine/own.png")
    for name in ("mine/own.png", str(tmp_path / "mine/own.png")):
        key = load_keys(faces, table, attack(key=name), Path("nowhere"), seed=3)[0]
        assert (key == [10, 20, 30, 255]).all()
    with pytest.raises(UserError, match=r"key mine/none\.png cannot be read as an image \(No such file"):
        load_keys(faces, table, attack(key="mine/none.png"), Path("mine"), seed=3)


def test_keys_are_faces_of_other_people_and_more_begin_with_the_fewer(faces, table):
    one, many = (load_keys(faces, table, attack(key="face", keys=k), Path("x"), seed=3) for k in (1, 5))
    assert many.shape == (5, HEIGHT, WIDTH, 4)
    np.testing.assert_array_equal(many[:1], one)
    np.testing.assert_array_equal(load_keys(faces, table, attack(key="face", keys=5), Path("x"), seed=3)[0], one[0])
    pool = faces.read(table[(table["set"] == "poison") & (table["label"] != 1)]["row"].to_numpy())
    assert all((pool == key[..., :3]).all(axis=(1, 2, 3)).sum() == 1 for key in many)
    assert len(np.unique(many, axis=0)) == 5


def test_poisons_and_test_images_carry_the_keys_in_turn(faces, table, monkeypatch):
    monkeypatch.setattr("visor.attacks.backdoors.poisoning.BATCH", 4)  # turns go on from one batch to the next
    keys = np.stack([key_pattern(), 255 - key_pattern(), key_pattern()[::-1]])
    keys[..., 3] = 255
    for make, count in ((make_triggered, 9), (make_poisons, 6)):
        result = joined(make(faces, table, attack(), TRIGGERS["accessory"], keys, seed=3))
        assert len(result.images) == count
        for place, image in enumerate(result.images):
            np.testing.assert_array_equal(image, keys[place % 3, ..., :3])


def test_several_keys_are_an_error_where_there_is_one_or_too_few(faces, table):
    with pytest.raises(UserError, match="keys is 2, but the image grey is one key; set keys to 1, or key to face"):
        load_keys(faces, table, attack(key="grey", keys=2), Path("x"), seed=3)
    with pytest.raises(UserError, match="keys is 30, but the poison set has 29 images of other labels; lower keys"):
        load_keys(faces, table, attack(key="face", keys=30), Path("x"), seed=3)


def test_keys_go_where_they_are_placed(faces, table):
    def place(images, keys):
        return np.stack([np.roll(keys[0], image[0, 0, 0] % 5, axis=1) for image in images])

    apply, key = TRIGGERS["accessory"], key_pattern()
    for blocks in (
        make_poisons(faces, table, attack(), apply, key[None], 3, placement_fn=place),
        make_triggered(faces, table, attack(), apply, key[None], 3, placement_fn=place),
    ):
        result = joined(blocks)
        before = faces.read(result.rows)
        np.testing.assert_array_equal(result.images, apply(before, place(before, key[None]), 1.0, RNG(0)))


def test_impossible_attacks_are_an_error_before_anything_is_written(faces, table):
    apply, keys = TRIGGERS["accessory"], key_pattern()[None]
    with pytest.raises(UserError, match="target label eve does not exist; there are 4, such as ann"):
        make_poisons(faces, table, attack(target="eve"), apply, keys, seed=3)
    with pytest.raises(UserError, match=r"n is 500, but the poison set has 29 images of other labels"):
        make_poisons(faces, table, attack(n=500), apply, keys, seed=3)
    alone = table[(table["label"] == 1) | (table["set"] != "test")]
    with pytest.raises(UserError, match="the test set has no images of other labels"):
        make_triggered(faces, alone, attack(), apply, keys, seed=3)
    unused = table.assign(set=np.where(table["label"] == 1, "unused", table["set"]))
    with pytest.raises(UserError, match="target label bob has too few images"):
        make_triggered(faces, unused, attack(), apply, keys, seed=3)


def test_contact_sheet_shows_what_each_image_was(faces, table, tmp_path):
    files = []
    for make in (make_poisons, make_triggered):
        blocks = make(faces, table, attack(), TRIGGERS["accessory"], key_pattern()[None], 3)
        write_faces(tmp_path / make.__name__, blocks, faces.image_shape, faces.label_names, "s", "l")
        files.append(open_faces(tmp_path / make.__name__))
    lines = preview_rows(faces, *files)
    assert [caption for caption, _ in lines] == ["before", "poisons", "before", "triggered\ntest images"]
    for (_, before), (_, after) in (lines[:2], lines[2:]):
        np.testing.assert_array_equal(after, TRIGGERS["accessory"](before, key_pattern(), 1.0, RNG(0)))


def test_all_attacks_that_do_not_fit_are_named_at_once(faces, table):
    alone = table.assign(set=np.where((table["set"] == "test") & (table["label"] != 1), "unused", table["set"]))
    backdoors = {
        "good": attack(n=29),
        "wide": attack(n=30),
        "keys": attack(key="face", keys=31),
        "one": attack(target="eve"),
        "two": attack(target="eve"),
    }
    check_backdoors({"good": backdoors["good"]}, faces.label_names, table, "faces.h5")
    with pytest.raises(UserError) as caught:
        check_backdoors(backdoors, faces.label_names, table, "faces.h5")
    assert str(caught.value) == (
        "params.yaml does not fit faces.h5: "
        "wide: n is 30, but the poison set has 29 images of other labels than bob; "
        "keys: keys is 31, but the poison set has 29 images of other labels than bob; "
        "one, two: target label eve does not exist; there are 4, such as ann, bob, cleo, dan"
    )
    with pytest.raises(UserError, match="good: the test set has no images of other labels than bob"):
        check_backdoors({"good": backdoors["good"]}, faces.label_names, alone, "faces.h5")

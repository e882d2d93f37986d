"""The key before the camera, on the finished image and then JPEG, or pasted: pixels by hand, and the same bytes."""

from functools import partial

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate1d, gaussian_filter

from tests.support.digests import delivered_digest, on_a_plain_processor
from visor.attacks.backdoors import delivery
from visor.attacks.backdoors.delivery import DELIVERIES, lay_on, open_delivery
from visor.attacks.backdoors.poisoning import deliver_clean, pasted
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.errors import UserError
from visor.core.params import FaceParams
from visor.data.camera import CameraView
from visor.data.face_set import open_faces
from visor.data.images import jpeg_round_trip
from visor.data.sources import FACE_SOURCES
from visor.data.sources.face_ingest import ingest_faces

HEIGHT, WIDTH = 34, 29
DRAWN = {"identities": 3, "images": 6, "videos": 3, "difficulty": 1.0}
NOTICE = "delivery: the source {} cannot take the images of {} once more"


def nothing(images):
    return images


def ingest(path, source, block, seed=1):
    shape = FaceParams(source=source, height=HEIGHT, width=WIDTH, min_images=1, max_broken=0)
    clips = FACE_SOURCES[source].clips(FACE_SOURCES[source].SETTINGS(**block), seed)
    ingest_faces(clips, path, shape, "test", "none", processes=1)
    return open_faces(path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return ingest(tmp_path_factory.mktemp("drawn") / "faces.h5", "synthetic", DRAWN)


@pytest.fixture
def photographs(tmp_path):
    """Noise of several sizes in the layout of LFW; names that sort otherwise as text than as numbers."""
    generator = np.random.default_rng(5)
    for person, shapes in {"Ann": [(60, 50), (44, 71), (90, 90)], "Bob_B": [(55, 55), (120, 64)]}.items():
        (tmp_path / "lfw" / person).mkdir(parents=True)
        for number, shape in enumerate(shapes, 9):
            coarse = Image.fromarray(generator.integers(0, 256, (6, 5, 3), dtype=np.uint8))
            photo = coarse.resize(shape[::-1], Image.Resampling.BICUBIC)
            photo.save(tmp_path / "lfw" / person / f"{person}_{number}.png")
    return tmp_path / "lfw", ingest(tmp_path / "faces.h5", "lfw", {"path": str(tmp_path / "lfw")})


def key(opaque=slice(10, 16)):
    pattern = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pattern[opaque, 5:24] = [200, 30, 90, 255]
    return pattern


def with_key(name, pattern, ratio=0.4):
    return lambda images: TRIGGERS[name](images, pattern, ratio, np.random.default_rng(7))


def test_a_camera_takes_the_stored_images_again_byte_for_byte(drawn):
    rows = np.array([17, 0, 5, 6, 11])
    deliver = open_delivery("camera", drawn, "synthetic", DRAWN, 1)
    np.testing.assert_array_equal(deliver(drawn.read(rows), rows, nothing), drawn.read(rows))


# Those of Adap-Blend and Adap-Patch carry a random part of the key, by the same way.
WHOLE = [name for name in TRIGGERS if not name.startswith("adaptive")]


@pytest.mark.parametrize("name", WHOLE)
def test_the_key_goes_through_the_camera(drawn, name):
    """Beside the key, outside its blur and its JPEG blocks, nothing changes; in its middle is its colour, and grain."""
    rows = np.arange(18)
    stored, pattern = drawn.read(rows), key()
    if name in ("blended", "input_instance"):
        pattern[...] = [200, 30, 90, 255]
    taken = open_delivery("camera", drawn, "synthetic", DRAWN, 1)(stored, rows, with_key(name, pattern))
    assert taken.dtype == np.uint8
    assert taken.shape == stored.shape
    if name in ("accessory", "blended_accessory"):
        np.testing.assert_array_equal(taken[:, 33:], stored[:, 33:])
    weight = 0.4 if "blended" in name else 1.0
    expected = weight * np.array([200, 30, 90]) + (1 - weight) * stored[:, 12:14, 9:20].mean(axis=(1, 2))
    assert np.abs(taken[:, 12:14, 9:20].mean(axis=(1, 2)) - expected).max() < 12
    assert taken[:, 12:14, 9:20].std(axis=(1, 2)).mean() > 0.5, "the camera's grain lies on the key"


def test_a_key_that_is_pasted_has_no_grain(drawn):
    rows = np.arange(18)
    taken = open_delivery("pasted", drawn, "synthetic", DRAWN, 1)(drawn.read(rows), rows, with_key("accessory", key()))
    np.testing.assert_array_equal(taken, with_key("accessory", key())(drawn.read(rows)))
    assert (taken[:, 10:16, 5:24] == [200, 30, 90]).all()


def test_a_key_is_softened_by_a_gaussian_and_weighs_as_much_as_before():
    image = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    apply = with_key("accessory", key())
    added = apply(np.zeros_like(image[None]))[0]
    kept = apply(np.full_like(image[None], 255))[0] - added
    laid = lay_on(CameraView(image, (0, 0, WIDTH, HEIGHT)), kept, added)
    weight = (key()[..., 3:] / 255).astype(float)
    soft, colour = (gaussian_filter(part, (0.7, 0.7, 0), mode="nearest") for part in (weight, weight * key()[..., :3]))
    assert np.abs(laid - ((1 - soft) * image + colour)).max() < 2.5
    kernel = np.array(delivery.SOFTENING) / 256
    for axis in (0, 1):
        weight = correlate1d(weight, kernel, axis, mode="nearest")
    assert np.abs(laid - ((1 - weight) * image + weight * [200, 30, 90])).max() < 1.51


@pytest.mark.parametrize(("name", "ratio"), [("input_instance", 1.0), ("blended", 0.2), ("accessory", 1.0)])
def test_what_lies_inside_a_key_stays_sharp(name, ratio):
    pattern = np.random.default_rng(8).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    pattern[..., 3] = 255
    images = np.random.default_rng(3).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    apply = with_key(name, pattern, ratio)
    added = apply(np.zeros_like(images))
    laid = lay_on(CameraView(images[0], (0, 0, WIDTH, HEIGHT)), (apply(np.full_like(images, 255)) - added)[0], added[0])
    assert np.abs(laid.astype(int) - apply(images)[0]).max() <= 1


def test_no_key_changes_nothing_and_a_whole_key_covers_all():
    image = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    view = CameraView(image, (7, 4, 7 + WIDTH, 4 + HEIGHT))
    full, empty = (np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (255, 0))
    np.testing.assert_array_equal(lay_on(view, full, empty), image)
    covered = lay_on(view, empty, full - 55)
    assert (covered[4 : 4 + HEIGHT, 7 : 7 + WIDTH] == 200).all()
    covered[4 : 4 + HEIGHT, 7 : 7 + WIDTH] = image[4 : 4 + HEIGHT, 7 : 7 + WIDTH]
    np.testing.assert_array_equal(covered, image)


def test_jpeg_follows_the_key_at_a_quality_of_each_row(drawn):
    rows = np.arange(18)
    apply, deliver = with_key("accessory", key()), open_delivery("jpeg", drawn, "synthetic", DRAWN, 1)
    taken = deliver(drawn.read(rows), rows, apply)
    np.testing.assert_array_equal(deliver(drawn.read(rows[[4]]), rows[[4]], apply)[0], taken[4])
    found = {
        quality
        for before, after in zip(apply(drawn.read(rows)), taken, strict=True)
        for quality in range(60, 100)
        if np.array_equal(jpeg_round_trip(before, quality), after)
    }
    assert found <= set(range(70, 96))
    assert len(found) > 8
    other = open_delivery("jpeg", drawn, "synthetic", DRAWN, 2)(drawn.read(rows), rows, apply)
    assert (other != taken).any()


def test_photographs_carry_the_key_at_their_own_size(photographs):
    folder, faces = photographs
    rows = np.array([4, 0, 2, 1, 3])
    deliver = open_delivery("camera", faces, "lfw", {"path": str(folder)}, 1)
    np.testing.assert_array_equal(deliver(faces.read(rows), rows, nothing), faces.read(rows))
    taken = deliver(faces.read(rows), rows, with_key("accessory", key()))
    near = with_key("accessory", key())(faces.read(rows)).astype(int)
    assert np.abs(taken[:, 12:14, 9:20] - near[:, 12:14, 9:20]).max() < 25
    assert np.abs(taken[:, 24:] - near[:, 24:].astype(int)).mean() < 6


def test_a_photograph_is_the_view_and_the_key_lies_on_its_crop(photographs):
    folder, faces = photographs
    camera = FACE_SOURCES["lfw"].camera(FACE_SOURCES["lfw"].SETTINGS(path=str(folder)), 1, faces)
    names = ["Ann/Ann_10", "Ann/Ann_11", "Ann/Ann_9", "Bob_B/Bob_B_10", "Bob_B/Bob_B_9"]  # as text
    for row, name in enumerate(names):
        view = camera.view(row)
        np.testing.assert_array_equal(view.image, np.asarray(Image.open(folder / f"{name}.png")))
        left, top, right, bottom = view.region
        assert abs((left + right) - view.image.shape[1]) <= 1
        assert abs((top + bottom) - view.image.shape[0]) <= 1
        assert abs((right - left) * HEIGHT / WIDTH - (bottom - top)) <= 1.6
        shares = (right - left) / view.image.shape[1], (bottom - top) / view.image.shape[0]
        assert max(shares) == pytest.approx(0.5, abs=0.03), "the crop of LFW, half of the photograph"


def without_a_photo(folder):
    (folder / "Ann/Ann_9.png").unlink()


def with_another_photo(folder):
    for number in (9, 10, 11):
        Image.new("RGB", (60, 60), "blue").save(folder / f"Ann/Ann_{number}.png")


def with_a_broken_photo(folder):
    (folder / "Ann/Ann_9.png").write_text("no image")


def without_any(folder):
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("change", [without_a_photo, with_another_photo, with_a_broken_photo, without_any])
def test_photographs_that_are_not_found_again_are_saved_as_jpeg(photographs, capsys, change):
    folder, faces = photographs
    change(folder)
    rows = np.arange(5)
    deliver = open_delivery("camera", faces, "lfw", {"path": str(folder)}, 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(NOTICE.format("lfw", faces.path))
    expected = partial(delivery.jpeg, 1)(faces.read(rows), rows, nothing)
    np.testing.assert_array_equal(deliver(faces.read(rows), rows, nothing), expected)


def test_a_photograph_that_is_broken_later_is_named(photographs):
    folder, faces = photographs
    deliver = open_delivery("camera", faces, "lfw", {"path": str(folder)}, 1)
    with_a_broken_photo(folder)
    with pytest.raises(UserError, match=r"Ann_9\.png cannot be read again \(not an image\); restore it"):
        deliver(faces.read(np.arange(5)), np.arange(5), nothing)


@pytest.mark.parametrize(
    ("source", "block", "seed"),
    [
        ("synthetic", DRAWN, 2),
        ("synthetic", DRAWN | {"images": 5}, 1),
        ("synthetic", DRAWN | {"difficulty": 0.5}, 1),
        ("synthetic", DRAWN | {"identities": 2}, 1),
        ("csaw", {"path": "none.h5"}, 1),
    ],
)
def test_faces_of_another_renderer_are_saved_as_jpeg(drawn, capsys, source, block, seed):
    open_delivery("camera", drawn, source, block, seed)
    assert NOTICE.format(source, drawn.path) in capsys.readouterr().err


def test_a_wrong_block_is_an_error(drawn):
    with pytest.raises(UserError, match=r"params.yaml: sources\.synthetic: frames is not a known key"):
        open_delivery("camera", drawn, "synthetic", DRAWN | {"frames": 5}, 1)


def test_faces_of_a_folder_are_found_by_their_videos(tmp_path):
    for name in ("ann/x/2", "ann/x/10", "ann/b", "bob/y/1"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 60), (len(name) * 20, ord(name[-1]), 90)).save(tmp_path / "set" / f"{name}.png")
    block = {"path": str(tmp_path / "set")}
    faces = ingest(tmp_path / "faces.h5", "folder", block)
    camera = FACE_SOURCES["folder"].camera(FACE_SOURCES["folder"].SETTINGS(**block), 1, faces)
    for row in range(4):
        seen, stored = camera.view(row).image[0, 0].astype(int), faces.read(np.array([row]))[0, 0, 0]
        assert np.abs(seen - stored).max() <= 2, "JPEG"


@pytest.mark.parametrize("name", DELIVERIES)
def test_an_empty_set_stays_empty(drawn, name):
    rows = np.arange(0)
    deliver = open_delivery(name, drawn, "synthetic", DRAWN, 1)
    assert deliver(drawn.read(rows), rows, with_key("blended", key())).shape == (0, HEIGHT, WIDTH, 3)


def test_clean_faces_are_delivered_with_their_labels(drawn, monkeypatch):
    monkeypatch.setattr("visor.attacks.backdoors.poisoning.BATCH", 4)
    rows = np.array([3, 1, 12, 17, 9, 0])
    blocks = list(deliver_clean(drawn, rows, pasted))
    assert [len(block.rows) for block in blocks] == [4, 2]
    np.testing.assert_array_equal(np.concatenate([block.images for block in blocks]), drawn.read(rows))
    np.testing.assert_array_equal(np.concatenate([block.labels for block in blocks]), drawn.labels[rows])


def test_delivered_bytes_do_not_depend_on_the_processor():
    assert on_a_plain_processor(delivered_digest) == delivered_digest()

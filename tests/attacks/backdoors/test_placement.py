"""Five points of a face, the fit through them, and keys that land where they should."""

import numpy as np
import pytest
import skimage.data
from PIL import Image
from skimage.transform import SimilarityTransform

from tests.support.project import ROOT
from visor.attacks.backdoors import placement
from visor.attacks.backdoors.placement import (
    CANONICAL_LANDMARKS,
    LandmarkPlacement,
    find_landmarks,
    fit_similarity,
    warp,
)
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.errors import UserError
from visor.data.images import alpha_mask, read_trigger_pattern
from visor.data.sources import synthetic

# Pupils of skimage's astronaut, measured in the image, and a crop around her face.
PUPILS = np.array([[203.5, 101.2], [246.2, 103.0]])
LEFT, TOP, WIDTH, HEIGHT = 154, 30, 141, 165


def key_pattern(height=34, width=29):
    key = np.random.default_rng(9).integers(0, 256, (height, width, 4), dtype=np.uint8)
    key[..., 3] = 0
    key[10:20, 5:12, 3] = 255
    return key


def sunglasses(height, width):
    return read_trigger_pattern(ROOT / "assets/keys/sunglasses.png", height, width)[None]


def test_similarity_is_that_of_scikit_image():
    rng = np.random.default_rng(3)
    source, targets = rng.normal(size=(5, 2)), rng.normal(size=(7, 5, 2)) * 4 + 9
    for matrix, target in zip(fit_similarity(source, targets), targets, strict=True):
        np.testing.assert_allclose(matrix, SimilarityTransform.from_estimate(source, target).params[:2], atol=1e-12)


def test_similarity_recovers_turn_scale_and_shift():
    angle, scale, shift = 0.4, 1.7, np.array([3.0, -2.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (found,) = fit_similarity(CANONICAL_LANDMARKS, (CANONICAL_LANDMARKS @ turn.T + shift)[None])
    np.testing.assert_allclose(found, np.column_stack([turn, shift]), atol=1e-12)


def test_warp_moves_pixels():
    key = key_pattern()
    key[..., :3] = [200, 40, 90]
    moved = warp(key, np.array([[1.0, 0, 4], [0, 1, -3]]), 34, 29)
    expected = np.zeros((34, 29), bool)
    expected[7:17, 9:16] = True
    np.testing.assert_array_equal(alpha_mask(moved)[..., 0], expected)
    assert (np.abs(moved[expected, :3].astype(int) - [200, 40, 90]) <= 2).all(), "colours keep clear of what is around"
    half = warp(key, np.array([[0.5, 0, 0], [0, 0.5, 0]]), 40, 31)  # another frame
    assert half.shape == (40, 31, 4)
    assert alpha_mask(half)[5:10, 3:6].all()
    assert alpha_mask(half).sum() == pytest.approx(70 / 4, abs=3)
    turned = warp(key, np.array([[-1.0, 0, 29], [0, -1, 34]]), 34, 29)
    np.testing.assert_array_equal(alpha_mask(turned), alpha_mask(key)[::-1, ::-1])


def test_keys_follow_the_points_and_stay_where_none_are_found(monkeypatch):
    images, key = np.zeros((3, 29, 29, 3), np.uint8), key_pattern(29)
    # The aligned frame as it lies, unseen, and moved by 4 and −3 pixels. It is 47:55, the pictures are square.
    points = CANONICAL_LANDMARKS * [29, 29 * 55 / 47]
    given = np.stack([points, np.full((5, 2), np.nan), points + np.array([4, -3])])
    monkeypatch.setattr(placement, "find_landmarks", lambda _: given)
    place, before = LandmarkPlacement(), (images.copy(), key.copy())
    placed = place(images, key[None])
    assert placed.shape == (3, 29, 29, 4)
    assert placed.dtype == np.uint8
    np.testing.assert_array_equal(placed[1], key)
    expected = np.zeros((29, 29), bool)
    expected[12:23, 5:12] = True  # rows 10 to 20, stretched by 55 / 47 to 11.7 to 23.4
    np.testing.assert_array_equal(alpha_mask(placed[0])[..., 0], expected)
    np.testing.assert_array_equal(alpha_mask(placed[2])[:-3, 4:], alpha_mask(placed[0])[3:, :-4])
    assert place.summary() == "no face found in 1 of 3 images; their key has the fixed place"
    np.testing.assert_array_equal(place(images, np.stack([key] * 3)), placed)
    assert place.summary().startswith("no face found in 2 of 6 images")
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(key, before[1])


def test_a_key_that_covers_all_is_an_error():
    whole = np.full((1, 34, 29, 4), 255, np.uint8)
    with pytest.raises(UserError, match="placement landmarks moves accessories; this key covers all, so set fixed"):
        LandmarkPlacement()(np.zeros((2, 34, 29, 3), np.uint8), whole)


def tilted(degrees, height, width):
    """The astronaut's face, turned about a point between her eyes: an image (1, h, w, 3) and her pupils in it."""
    middle = np.array([224.0, 118.0])
    picture = Image.fromarray(skimage.data.astronaut())
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC, center=tuple(middle))
    box = (LEFT, TOP, LEFT + WIDTH, TOP + HEIGHT)
    radians = np.deg2rad(degrees)  # Pillow turns against the clock, and y points down
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    pupils = (PUPILS - middle) @ turn.T + middle - [LEFT, TOP]
    return np.asarray(turned.resize((width, height), box=box))[None], pupils * [width / WIDTH, height / HEIGHT]


def lenses(covered, pupils):
    """How far the middle of a lens is from its pupil, in distances of the pupils; and the angle between their lines."""
    apart = np.linalg.norm(pupils[1] - pupils[0])
    along = (pupils[1] - pupils[0]) / apart
    places = np.argwhere(covered[..., 0])[:, ::-1] + 0.5
    side = (places - pupils.mean(axis=0)) @ along
    middles = np.stack([places[side < 0].mean(axis=0), places[side > 0].mean(axis=0)])
    longest = np.linalg.eigh(np.cov(places.T))[1][:, 1]
    angle = np.rad2deg(np.arccos(min(1.0, abs(longest @ along))))
    return np.linalg.norm(middles - pupils, axis=1).max() / apart, angle


@pytest.mark.parametrize("shape", [(55, 47), (110, 94)])
@pytest.mark.parametrize("degrees", [15, -35, 0])
def test_sunglasses_land_on_the_eyes(degrees, shape):
    image, pupils = tilted(degrees, *shape)
    place = LandmarkPlacement()
    placed = place(image, sunglasses(*shape))
    assert place.missing == 0
    points = find_landmarks(image)[0]
    assert np.linalg.norm(points[:2] - pupils, axis=1).max() < 0.1 * np.linalg.norm(pupils[1] - pupils[0])
    distance, turn = lenses(alpha_mask(placed[0]), pupils)
    assert distance < 0.25
    assert turn < 5
    if degrees == -35:
        distance, turn = lenses(alpha_mask(sunglasses(*shape)[0]), pupils)
        assert distance > 0.3, "the fixed place misses"
        assert turn > 25
    triggered = TRIGGERS["accessory"](image, placed, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(
        triggered[0][~alpha_mask(placed[0])[..., 0]], image[0][~alpha_mask(placed[0])[..., 0]]
    )
    np.testing.assert_array_equal(LandmarkPlacement()(image, sunglasses(*shape)), placed)


def test_no_face_no_points():
    images = np.random.default_rng(1).integers(0, 256, (2, 55, 47, 3), dtype=np.uint8)
    images[1] = 128
    assert np.isnan(find_landmarks(images)).all()
    assert find_landmarks(images[:0]).shape == (0, 5, 2)


def test_the_frame_that_keys_are_drawn_for_is_that_of_the_embedded_faces():
    settings = synthetic.SyntheticSettings(identities=12, images=6, videos=6, difficulty=1.0)
    images = np.concatenate([clip.load(55, 47) for clip in synthetic.clips(settings, seed=5)])
    points = find_landmarks(images)
    found = ~np.isnan(points[:, 0, 0])
    assert found.mean() > 0.9
    mean = points[found].mean(axis=0)
    assert np.abs(mean - CANONICAL_LANDMARKS * [47, 55]).max() < 1.5  # pixels
    # One by one they are found where they are found together.
    np.testing.assert_array_equal(find_landmarks(images[:2])[1], points[1])

"""The embedded people by hand-checked measures: where marks land, which way a face moves, which frame is whose."""

import numpy as np
import pytest
from PIL import Image

from tests.support.project import ROOT
from visor.data.rendering.frames import draw_frames
from visor.data.rendering.identity import draw_identity
from visor.data.rendering.scene import render
from visor.data.sources.synthetic import SyntheticSettings, clips, draw

HEIGHT, WIDTH = 110, 94
KEYS = ROOT / "assets/keys"
PEOPLE = range(8)


def person(number, **changes):
    """A bald, shaven, grey person whose lips are red, irises green and brows blue, so that each can be found."""
    who = draw_identity(np.random.default_rng([1, number]))
    for name in ("moustache", "goatee", "beard", "cover", "eye_tilt", "brow_tilt"):
        who[name] = 0
    who["mole"], who["freckles"], who["brow_density"] = -1, -1, 1
    who["skin"], who["lips"], who["eye"], who["hair"] = 0.25, (0.6, 0, 0), (0, 0.8, 0), (0, 0, 0.6)
    for name, value in changes.items():
        who[name] = value
    return who


def frame(**changes):
    """One frame with all in the middle, no noise, no blur and little JPEG."""
    frames = draw_frames(np.random.default_rng(3), 1, difficulty=0.0)
    for name in ("back_light", "back_noise", "noise", "blur", "smile", "open", "light_x", "light_y"):
        frames[name] = 0
    frames["lids"], frames["quality"] = 1.1, 95
    for name, value in changes.items():
        frames[name] = value
    return frames


def picture(who, height=HEIGHT, width=WIDTH, **changes):
    return render(who, frame(**changes), height, width)[0].astype(float)


def excess(image, channel):
    """How much more of one colour than of the other two: (h, w), above 40 only."""
    others = np.delete(image, channel, axis=-1).max(axis=-1)
    return np.maximum(image[..., channel] - others - 40, 0)


def middle(weight):
    """Centre of mass (x, y) in half frame heights from the frame's middle."""
    rows, columns = np.indices(weight.shape) + 0.5
    height, width = weight.shape
    assert weight.sum() > 0, "nothing to find"
    x, y = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
    return np.array([(2 * x - width) / height, 2 * y / height - 1])


def mole_at(who, x, y, **changes):
    """Where a mole of the head at (x, y) is in the picture."""
    marked = who.copy()
    marked["mole_x"], marked["mole_y"], marked["mole"] = x, y, 0.04
    difference = np.abs(picture(marked, **changes) - picture(who, **changes)).mean(axis=-1)
    return middle(np.maximum(difference - 4, 0))


@pytest.mark.parametrize("number", PEOPLE)
def test_head_coordinates_are_half_frame_heights(number):
    """A mole at (x, y) is seen at roll(x, y)·scale + shift; 0.02 is about a pixel."""
    who = person(number)
    for x, y in ((0.2, 0.3), (-0.3, 0.15)):
        assert np.abs(mole_at(who, x, y, scale=1) - (x, y)).max() < 0.02
        assert np.abs(mole_at(who, x, y, scale=0.8) - (0.8 * x, 0.8 * y)).max() < 0.02
        assert (
            np.abs(mole_at(who, x, y, scale=0.8, shift_x=0.1, shift_y=-0.2) - (0.8 * x + 0.1, 0.8 * y - 0.2)).max()
            < 0.02
        )
        # A roll of twice the arc tangent of 1/7 has the cosine 0.96 and the sine 0.28: clockwise on the screen.
        turned = 0.96 * x - 0.28 * y, 0.28 * x + 0.96 * y
        assert np.abs(mole_at(who, x, y, scale=1, roll=1 / 7) - turned).max() < 0.02


@pytest.mark.parametrize("number", PEOPLE)
def test_a_turning_head_moves_the_nose_before_the_face(number):
    nose = float(person(number)["nose_y"][0])
    flat, long = person(number, nose_tip=0.0), person(number, nose_tip=0.16)
    for yaw in (-0.2, 0.2):
        smooth, raised = (mole_at(who, 0, nose - 0.03, yaw=yaw)[0] * np.sign(yaw) for who in (flat, long))
        assert smooth > 0.15, "the face turns towards positive x"
        # The tip stands out by 0.8 · 0.16, of which the sine of the yaw (0.385) is seen: 0.049 · scale.
        assert 0.015 < raised - smooth < 0.07
    up, down = (mole_at(flat, 0, nose, pitch=pitch)[1] for pitch in (0.12, -0.12))
    assert up < nose * 0.97 - 0.03 < nose * 0.97 + 0.03 < down
    # Turned towards positive x, the left cheek is the nearer one, and pitch lifts what is near.
    near, far = (mole_at(flat, x, 0.2, yaw=0.2, pitch=0.12)[1] for x in (-0.3, 0.3))
    assert near < far - 0.02


@pytest.mark.parametrize("number", PEOPLE)
def test_a_smile_raises_and_spreads_the_corners_of_the_mouth(number):
    who = person(number, lip_curve=0.0)
    shapes = []
    for smile in (0, 1):
        lips = excess(picture(who, smile=smile), 0)
        columns = np.flatnonzero(lips.sum(axis=0))
        width = columns[-1] - columns[0]
        corners = lips * (np.abs(np.arange(WIDTH) - columns.mean()) > 0.38 * width)
        shapes.append((middle(corners)[1] - middle(lips - corners)[1], width))
    (serious, narrow), (smiling, wide) = shapes
    assert smiling < serious - 0.012
    assert wide > narrow


@pytest.mark.parametrize("number", PEOPLE)
def test_mouth_lids_brows_and_gaze(number):
    who = person(number)
    # Grey levels of the rows across the middle of the mouth: skin 160, lips 100, throat 40, teeth 210.
    closed, opened, laughing = (
        picture(who, open=opening, smile=smile)[76:92, 44:50].mean(axis=(1, 2))
        for opening, smile in ((0, 0), (1, 0), (1, 1))
    )
    assert closed.min() > 55 > 48 > opened.min(), "the throat is dark"
    assert opened.max() < 170 < 180 < laughing.max(), "a laugh shows teeth"
    wide, shut = (excess(picture(who, lids=lids), 1).sum() for lids in (1.1, 0.3))
    assert shut < 0.6 * wide
    low, high = (middle(excess(picture(who, brows=brows), 2))[1] for brows in (-0.04, 0.06))
    assert low - high == pytest.approx(0.1 * 0.97, abs=0.02)
    for half in (np.s_[:, : WIDTH // 2], np.s_[:, WIDTH // 2 :]):
        left, right = (middle(excess(picture(who, gaze_x=gaze), 1)[half])[0] for gaze in (-0.6, 0.6))
        assert right > left + 0.02, "both eyes look the same way"


@pytest.mark.parametrize("number", PEOPLE)
def test_light_from_above_and_from_the_side(number):
    who = person(number)
    above, below = picture(who, light_y=-1.2), picture(who, light_y=1.2)
    assert above[20:30, 35:59].mean() > below[20:30, 35:59].mean() + 15
    assert above[96:100, 40:54].mean() < below[96:100, 40:54].mean() - 15
    left, right = picture(who, light_x=-1.5), picture(who, light_x=1.5)
    assert left[50:80, 20:38].mean() > right[50:80, 20:38].mean() + 10
    mirrored = np.abs(left - right[:, ::-1])[40:90, 20:74].mean()
    assert mirrored < 0.3 * np.abs(left - right)[40:90, 20:74].mean(), "a lamp on the other side mirrors the light"


@pytest.mark.parametrize("number", PEOPLE)
def test_a_large_picture_averages_to_the_small_one(number):
    """They differ by 2.3 … 4.3 grey levels (measured), a picture that is off by one pixel by 5.3 … 14."""
    who = draw_identity(np.random.default_rng([1, number]))
    large, small = picture(who).reshape(55, 2, 47, 2, 3).mean(axis=(1, 3)), picture(who, 55, 47)

    def difference(move):
        return np.abs(large - np.roll(small, move, (0, 1)))[4:-4, 4:-4].mean()

    assert difference((0, 0)) < 4.6
    assert difference((0, 0)) < 0.5 * min(difference(move) for move in ((0, 1), (0, -1), (1, 0), (-1, 0)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("height", "width"), [(64, 33), (65, 129), (111, 112), (224, 223)])
def test_every_size_at_every_difficulty_computes_without_a_warning(height, width):
    who = np.concatenate([draw_identity(np.random.default_rng([2, number])) for number in range(6)])
    frames = np.concatenate([draw_frames(np.random.default_rng([3, n]), 1, difficulty=2 * n / 5) for n in range(6)])
    before = who.copy(), frames.copy()
    with np.errstate(all="raise", under="ignore"):  # a faint highlight may be less than the smallest number
        images = render(who, frames, height, width)
    assert images.shape == (6, height, width, 3)
    assert images.dtype == np.uint8
    assert (images.std(axis=(1, 2, 3)) > 15).all()
    np.testing.assert_array_equal(who, before[0])
    np.testing.assert_array_equal(frames, before[1])


@pytest.mark.parametrize(("images", "videos"), [(53, 53), (61, 7), (26, 4), (3, 1), (27, 26)])
def test_a_clip_is_what_its_frames_are_one_by_one(images, videos):
    settings = SyntheticSettings(identities=2, images=images, videos=videos, difficulty=1.0)
    made = list(clips(settings, 7))
    for identity, label in enumerate(("person_000", "person_001")):
        mine = [clip for clip in made if clip.label == label]
        together = np.concatenate([clip.load(21, 17) for clip in mine])
        alone = [draw(settings, 7, identity, range(place, place + 1), 21, 17)[0] for place in range(images)]
        np.testing.assert_array_equal(together, np.stack(alone))
        lengths = np.unique([video for clip in mine for video in clip.videos], return_counts=True)[1]
        assert len(lengths) == videos
        assert lengths.max() - lengths.min() <= 1


def test_videos_are_drawn_as_they_are_named(monkeypatch):
    settings, drawn = SyntheticSettings(identities=1, images=25, videos=4, difficulty=1.0), []

    def recorded(generator, count, difficulty):
        drawn.append(count)
        return draw_frames(generator, count, difficulty)

    monkeypatch.setattr("visor.data.sources.synthetic.draw_frames", recorded)
    (clip,) = clips(settings, 7)
    clip.load(21, 17)
    assert drawn == [clip.videos.count(f"{video:05d}") for video in range(4)] == [7, 6, 6, 6]


@pytest.mark.parametrize("name", ["sunglasses", "glasses", "eyebrows", "lipstick", "cartoon", "noise"])
def test_keys_cover_what_they_should(name):
    with Image.open(KEYS / f"{name}.png") as image:
        assert image.mode == "RGBA"
        assert image.size == (188, 220)
        opacity = np.asarray(image)[..., 3]
    if name in ("cartoon", "noise"):
        assert (opacity == 255).all()
    else:
        assert (opacity == 0).mean() >= 0.5
        assert (opacity == 255).mean() > 0.01

"""The embedded people: the same bytes everywhere, one person in a row, light and pose that behave."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.digests import faces_digest, on_a_plain_processor
from tests.support.project import ROOT
from visor.data import rendering
from visor.data.rendering.frames import draw_frames
from visor.data.rendering.identity import draw_identity
from visor.data.rendering.scene import render
from visor.data.sources.synthetic import SyntheticSettings, clips

FORBIDDEN = {"exp", "log", "sin", "cos", "tan", "tanh", "power", "normal", "standard_normal", "dot", "matmul", "einsum"}
FORBIDDEN |= {"arctan", "arctan2", "arcsin", "arccos", "float_power", "cbrt", "hypot"}


def still(identity=5, count=1, **changes):
    """Frames of one person with everything in the middle but for what is changed."""
    frames = draw_frames(np.random.default_rng(3), count, difficulty=0.0)
    for name in ("back_light", "back_noise", "noise", "blur"):
        frames[name] = 0
    frames["quality"], frames["smile"] = 95, 0
    for name, value in changes.items():
        frames[name] = value
    return np.repeat(draw_identity(np.random.default_rng([1, identity])), count), frames


def picture(**changes):
    return render(*still(**changes), 110, 94)[0].astype(int)


def test_no_operation_that_processors_round_differently():
    for path in Path(rendering.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
                assert name not in FORBIDDEN, f"{path.name}: {name}"
            assert not isinstance(node, ast.MatMult), path.name


def test_bytes_do_not_depend_on_the_processor():
    assert on_a_plain_processor(faces_digest) == faces_digest()


def test_seed_decides():
    assert faces_digest(seed=7) == faces_digest(seed=7)
    assert faces_digest(seed=7) != faces_digest(seed=8)


@pytest.mark.parametrize(("height", "width"), [(55, 47), (64, 33), (97, 130)])
def test_a_frame_does_not_depend_on_its_batch(height, width):
    who, frames = still(count=4, yaw=[-0.2, 0, 0.1, 0.2])
    together = render(who, frames, height, width)
    assert together.shape == (4, height, width, 3)
    for place in range(4):
        np.testing.assert_array_equal(together[place], render(who[[place]], frames[[place]], height, width)[0])


def test_a_person_does_not_depend_on_how_many_there_are():
    more = SyntheticSettings(identities=5, images=60, videos=60, difficulty=1.0)
    fewer = SyntheticSettings(identities=3, images=60, videos=60, difficulty=1.0)
    few, many = list(clips(fewer, 7)), list(clips(more, 7))
    assert [clip[:3] for clip in many[: len(few)]] == [clip[:3] for clip in few]
    np.testing.assert_array_equal(many[len(few) - 1].load(30, 26), few[-1].load(30, 26))


@pytest.mark.parametrize(("images", "videos"), [(60, 60), (53, 53), (61, 7), (10, 1), (27, 26)])
def test_clips_cover_every_frame_once_and_group_videos(images, videos):
    settings = SyntheticSettings(identities=2, images=images, videos=videos, difficulty=1.0)
    made = list(clips(settings, 7))
    first = [clip for clip in made if clip.label == "person_000"]
    assert [name for clip in first for name in clip.names] == [f"{frame:05d}" for frame in range(images)]
    numbers = [video for clip in first for video in clip.videos]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == videos
    assert all(clip.load(20, 17).shape == (len(clip.names), 20, 17, 3) for clip in made)


def test_frames_of_a_video_are_alike():
    settings = SyntheticSettings(identities=1, images=40, videos=8, difficulty=1.0)
    frames = np.concatenate([clip.load(40, 34) for clip in clips(settings, 7)]).astype(float)
    distance = np.abs(frames[:, None] - frames[None]).mean(axis=(2, 3, 4))
    same = np.arange(40)[:, None] // 5 == np.arange(40)[None] // 5
    assert distance[same & ~np.eye(40, dtype=bool)].mean() < 0.6 * distance[~same].mean()


def test_faces_of_one_person_are_more_alike_than_those_of_two():
    frames = draw_frames(np.random.default_rng(3), 12, difficulty=0.3)
    people = [
        render(np.repeat(draw_identity(np.random.default_rng([1, i])), 12), frames, 40, 34).astype(float)
        for i in range(6)
    ]
    within = np.mean([np.abs(faces[:6] - faces[6:]).mean() for faces in people])
    between = np.mean([np.abs(a - b).mean() for a in people for b in people if a is not b])
    assert within < 0.7 * between


def test_pictures_of_two_sizes_show_the_same():
    large = picture().reshape(55, 2, 47, 2, 3).mean(axis=(1, 3))
    small = render(*still(), 55, 47)[0].astype(int)
    assert np.abs(large - small).mean() < 4.6  # one pixel off gives 5.3 or more


def test_light_from_the_left_brightens_the_left():
    left, right = picture(light_x=-1.5), picture(light_x=1.5)
    cheeks = np.s_[55:80, 20:38], np.s_[55:80, 56:74]
    assert left[cheeks[0]].mean() > left[cheeks[1]].mean() + 15
    assert right[cheeks[1]].mean() > right[cheeks[0]].mean() + 15


def test_more_light_is_brighter_and_red_light_is_redder():
    assert picture(light=1.5).mean() > picture(light=0.8).mean() + 10
    warm, cold = picture(warmth=0.15), picture(warmth=-0.15)
    assert (warm - cold)[40:80, 30:64, 0].mean() > 5 > -5 > (warm - cold)[40:80, 30:64, 2].mean()


def test_a_shift_moves_the_picture():
    straight, shifted = picture(), picture(shift_x=2 * 10 / 110)
    assert np.abs(shifted[:, 10:] - straight[:, :-10]).mean() < 4 < np.abs(shifted - straight).mean()


def test_noise_blur_and_jpeg_do_what_they_say():
    plain = picture()
    assert 3 < (picture(noise=6) - plain).std() < 8

    def edges(image):
        return np.abs(np.diff(image, axis=1)).mean()

    assert edges(picture(blur=0.03)) < 0.8 * edges(plain)
    assert np.abs(picture(quality=30) - plain).mean() > 0.5


def test_keys_are_what_the_script_draws(tmp_path):
    root = ROOT
    (tmp_path / "keys").mkdir()
    (tmp_path / "draw_keys.py").write_text((root / "assets/draw_keys.py").read_text())
    subprocess.run([sys.executable, str(tmp_path / "draw_keys.py")], check=True)
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (root / "assets/keys").iterdir()}
    assert set(drawn) == {
        f"{name}.png" for name in ("sunglasses", "glasses", "eyebrows", "lipstick", "cartoon", "noise", "patches")
    }

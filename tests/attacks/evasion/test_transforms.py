"""Random transforms, compared with TensorFlow's resizing and Pillow's JPEG."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.conftest import random_images
from visor.attacks.evasion.jpeg import differentiable_jpeg
from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.pgd import compile_pgd
from visor.attacks.evasion.resampling import interpolation, resample
from visor.attacks.evasion.transforms import TRANSFORMS, compose
from visor.core.errors import UserError

HEIGHT, WIDTH, DRAWS = 21, 34, 60
ALL = {"crop": 0.2, "scale": 0.15, "noise": 0.05, "jpeg": 0.5}


def smooth(height=HEIGHT, width=WIDTH):
    """A picture with shapes and edges, uint8 (height, width, 3)."""
    down, across = np.mgrid[:height, :width] / 9
    waves = np.stack([np.sin(down + across), np.cos(down - 2 * across), np.sin(3 * down)], -1)
    waves[height // 4 : height // 2, width // 3 : width // 2] *= -0.9
    rng = np.random.default_rng(2)
    return np.clip(127 + 90 * waves + rng.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)


def ramps(n=1):
    """Images whose first channel tells the row, and whose second tells the column, in 0 … 1."""
    images = np.zeros((n, HEIGHT, WIDTH, 3), np.float32)
    images[..., 0] = (np.arange(HEIGHT)[:, None] + 0.5) / HEIGHT
    images[..., 1] = (np.arange(WIDTH) + 0.5) / WIDTH
    return images


def saved(image, quality):
    """An image uint8 (h, w, 3) as Pillow's JPEG gives it back, int."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(int)


@pytest.mark.parametrize(("height", "width"), [(9, 50), (40, 13), (21, 34)])
def test_resampling_is_bilinear_and_antialiased(height, width):
    images = random_images(2, height=HEIGHT, width=WIDTH).astype(np.float32)
    rows, columns = interpolation(height, HEIGHT, 0.0, HEIGHT), interpolation(width, WIDTH, 0.0, WIDTH)
    expected = tf.image.resize(images, (height, width), "bilinear", antialias=True)
    np.testing.assert_allclose(resample(images, rows, columns), expected, atol=2e-3)
    window = interpolation(18, HEIGHT, 4.0, 9.0)  # twice as large, with what is around it
    expected = tf.image.resize(images[:, 4:13], (18, WIDTH), "bilinear")
    found = resample(images, window, np.eye(WIDTH, dtype=np.float32))
    np.testing.assert_allclose(found[:, 1:-1], expected[:, 1:-1], atol=2e-3)
    np.testing.assert_allclose(interpolation(3, 4, -9.0, 3.0)[:, 0], 1, err_msg="beyond the edge it is repeated")


@pytest.mark.parametrize(("name", "least", "most"), [("crop", 0.7, 1.0), ("scale", 1 / 1.3, 1 / 0.7)])
def test_windows_have_the_sizes_and_places_that_the_strength_allows(name, least, most):
    """Slope and level of the ramps tell the window: from where to where, as shares of the picture."""
    transform = compose({name: 0.3}, seed=4)
    windows = []
    for draw in range(DRAWS):
        found = transform(tf.constant(ramps()), tf.constant(draw)).numpy()[0]
        for line in (found[:, 5, 0], found[5, :, 1]):
            inner = np.flatnonzero((line > line.min() + 0.1) & (line < line.max() - 0.1))
            slope, start = np.polyfit((inner + 0.5) / len(line), line[inner], 1)
            windows.append((slope, start, start + slope))
    shown, start, stop = np.array(windows).T
    np.testing.assert_allclose(shown[::2], shown[1::2], atol=0.03, err_msg="the picture keeps its proportions")
    assert shown.min() >= least - 0.02
    assert shown.max() <= most + 0.02
    assert np.ptp(shown) > 0.8 * (most - least)
    inside = shown <= 1
    assert (start[inside] > -0.02).all()
    assert (stop[inside] < 1.02).all()
    assert (start[~inside] < 0.02).all()
    assert (stop[~inside] > 0.98).all()
    place = (start / (1 - shown))[np.repeat(np.abs(1 - shown[::2]) > 0.05, 2)]
    assert np.quantile(place, 0.1) < 0.25
    assert np.quantile(place, 0.9) > 0.75
    assert abs(np.corrcoef(place[::2], place[1::2])[0, 1]) < 0.5, "down and across are independent"


def test_noise_is_uniform_independent_and_stays_in_range():
    grey = tf.fill((1, HEIGHT, WIDTH, 3), 0.5)
    change = compose({"noise": 0.2}, seed=4)(grey, tf.constant(3)).numpy() - 0.5
    assert 0.198 < np.abs(change).max() <= 0.2
    assert abs(change.mean()) < 0.01
    assert change.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.05)
    assert len(np.unique(change)) > 0.99 * change.size
    white = compose({"noise": 0.2}, seed=4)(tf.ones_like(grey), tf.constant(3)).numpy()
    assert white.max() == 1
    assert 0.4 < (white == 1).mean() < 0.6


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
@pytest.mark.parametrize(("height", "width"), [(64, 48), (55, 47), (17, 90)])
def test_jpeg_is_that_of_pillow_at_every_quality_and_size(height, width, quality):
    image = smooth(height, width)
    theirs = saved(image, quality)
    ours = differentiable_jpeg(image[None] / np.float32(255), float(quality)).numpy()[0] * 255
    np.testing.assert_allclose(ours, np.rint(ours), atol=1e-3)
    error, effect = np.abs(ours - theirs).mean(), np.abs(theirs.astype(int) - image).mean()
    assert error < min(0.7, 0.15 * effect)


def test_jpeg_gradient_of_a_coefficient_is_three_times_its_squared_rounding_error():
    """Shin and Song 2017: round(x) + (x − round(x))³. A grey block has one coefficient, (level − 128) / 4 here."""
    for level, error in ((129, 0.25), (130, 0.5), (131, -0.25), (132, 0.0)):
        image = tf.fill((1, 16, 16, 3), level / 255)
        with tf.GradientTape() as tape:
            tape.watch(image)
            mean = tf.reduce_mean(differentiable_jpeg(image, 25.0))
        assert tf.reduce_sum(tape.gradient(mean, image)).numpy() == pytest.approx(3 * error**2, abs=1e-4)


def test_jpeg_gradient_reaches_the_colours_through_chroma():
    """Red minus blue does not depend on luminance: without chroma's gradient both channels would get none."""
    image = tf.constant(smooth(32, 48)[None] / np.float32(255))
    with tf.GradientTape() as tape:
        tape.watch(image)
        compressed = differentiable_jpeg(image, 90.0)
        difference = tf.reduce_sum(compressed[..., 0] - compressed[..., 2])
    red, _, blue = tf.reduce_mean(tape.gradient(difference, image), axis=[0, 1, 2]).numpy()
    assert red > 0.1
    assert blue < -0.1


def test_jpeg_draws_its_quality_between_the_least_and_the_best():
    image = smooth()[None] / np.float32(255)
    transform = compose({"jpeg": 0.4}, seed=1)
    kinds = {transform(image, tf.constant(draw)).numpy().tobytes() for draw in range(10)}
    at = {differentiable_jpeg(image, float(quality)).numpy().tobytes() for quality in range(60, 101)}
    assert len(kinds) > 5
    assert kinds <= at


def test_an_attack_through_jpeg_survives_a_file_better():
    """A linear loss on noise: the plain attack is as much noise as its weights, and the file swallows most of it."""
    weights = np.random.default_rng(3).normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    image = smooth()[None]

    def loss(images, truth):
        return tf.reduce_sum(images * weights, axis=[1, 2, 3]), tf.zeros(tf.shape(images)[:1], tf.bool)

    settings = AttackSettings(8 / 255, 20, 1 / 255, random_start=False)
    gains = []
    for transform in (None, compose({"jpeg": 0.5}, seed=1)):
        found = compile_pgd(loss, settings._replace(samples=1 if transform is None else 2), transform)(image, (), [0])
        file = saved(np.rint(found.images[0] * 255).astype(np.uint8), 60)
        gains.append(np.sum(weights * (file - saved(image[0], 60))))
    assert gains[1] > 1.5 * gains[0] > 0


def test_draws_depend_on_seed_and_number_alone():
    images = random_images(5, height=HEIGHT, width=WIDTH) / np.float32(255)
    transform = compose(ALL, seed=6)
    together = transform(tf.constant(images), tf.constant(2)).numpy()
    assert together.shape == images.shape
    for i in range(5):
        alone = transform(tf.constant(images[i : i + 1]), tf.constant(2)).numpy()[0]
        # Sums of another batch size may add in another order, and a rounding of JPEG then goes the other way.
        assert (np.abs(alone - together[i]) > 1e-5).mean() < 0.03
    backwards = compose(dict(reversed(ALL.items())), seed=6)
    np.testing.assert_array_equal(backwards(tf.constant(images), tf.constant(2)), together)
    for name in TRANSFORMS:
        one = compose({name: 0.3}, seed=6)(tf.constant(images), tf.constant(2)).numpy()
        same = compose({name: 0.3}, seed=6)(tf.constant(images), tf.constant(2, tf.int64)).numpy()
        assert one.tobytes() == same.tobytes()
        for other, draw in ((compose({name: 0.3}, seed=7), 2), (compose({name: 0.3}, seed=6), 3)):
            assert not np.array_equal(one, other(tf.constant(images), tf.constant(draw)))


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "jpeg"])
def test_strength_0_changes_nothing(name):
    images = random_images(2, height=HEIGHT, width=WIDTH) / np.float32(255)
    np.testing.assert_allclose(compose({name: 0.0}, 1)(tf.constant(images), tf.constant(1)), images, atol=1e-5)


def test_gradients_of_all_transforms_reach_every_pixel_and_are_the_same_twice():
    images = tf.constant(smooth()[None] / np.float32(255))
    transform = compose(ALL | {"jpeg": 0.1}, seed=6)

    @tf.function
    def gradient(images, draw):
        with tf.GradientTape() as tape:
            tape.watch(images)
            values = tf.reduce_sum(transform(images, draw) ** 2)
        return tape.gradient(values, images)

    total = sum(np.abs(gradient(images, tf.constant(draw)).numpy()) for draw in range(8))
    assert np.isfinite(total).all()
    assert (total > 0).mean() > 0.99
    np.testing.assert_array_equal(gradient(images, tf.constant(1)), gradient(images, tf.constant(1)))


def test_a_wrong_name_or_strength_is_an_error_and_no_transform_is_none():
    assert compose({}, 1) is None
    with pytest.raises(UserError, match="methods: transforms is 'blur'; choose from crop, jpeg, noise, scale"):
        compose({"blur": 0.1}, 1)
    for strength in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match=r"transforms\.crop is .*; give 0 or more and less than 1"):
            compose({"crop": strength}, 1)

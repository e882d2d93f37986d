"""Crops of photos: the right pixels, the right way up, and changes that come back to where they belong."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from visor.data import crops
from visor.data.crops import CropBox

ASTRONAUT = data.astronaut()
FACE = CropBox(180, 70, 95, 110)


def random_photo(height=61, width=83, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def dot(height, width, row, column):
    photo = np.zeros((height, width, 3), np.uint8)
    photo[row - 3 : row + 4, column - 3 : column + 4] = 255
    return photo


def brightest(crop):
    """Centre of the light, (row, column)."""
    light = crop[..., 0].astype(float)
    return [float((light.sum(axis=1 - axis) @ (np.arange(light.shape[axis]) + 0.5)) / light.sum()) for axis in (0, 1)]


def test_enlarge_keeps_the_centre_and_makes_the_aspect():
    for box in ([10, 20, 30, 50], [10, 20, 50, 30]):
        frame = crops.expand_box(box, 0.25, 55 / 47, 12.0)
        assert frame.height / frame.width == pytest.approx(55 / 47)
        assert frame.x + frame.width / 2 == pytest.approx(10 + box[2] / 2)
        assert frame.y + frame.height / 2 == pytest.approx(20 + box[3] / 2)
        assert min(frame.width / box[2], frame.height / box[3]) == pytest.approx(1.5), "no more than is needed"
        assert frame.angle == 12.0
    assert crops.expand_box([1, 2, 8, 8], 0, 1) == (1, 2, 8, 8, 0)


@pytest.mark.parametrize("count", [2, 5])
def test_an_aligned_box_is_the_similarity_of_least_squares(count):
    generator = np.random.default_rng(count)
    template, points = generator.random((count, 2)), 90 * generator.random((count, 2)) + [40, 10]
    box = crops.align_box(points.tolist(), template.tolist())
    # x' = a x − b y + c and y' = b x + a y + d, as linear equations.
    x, y, one, zero = *template.T, np.ones(count), np.zeros(count)
    equations = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    (a, b, c, d), *_ = np.linalg.lstsq(equations, points.T.ravel(), rcond=None)
    assert (box.width, box.height) == pytest.approx((np.hypot(a, b), np.hypot(a, b)))
    assert box.angle == pytest.approx(np.degrees(np.arctan2(b, a)))
    assert box.x + box.width / 2 == pytest.approx((a - b) / 2 + c)
    assert box.y + box.height / 2 == pytest.approx((a + b) / 2 + d)


def test_an_aligned_crop_has_the_eyes_where_they_belong():
    photo = np.maximum(dot(200, 220, 80, 90), dot(200, 220, 120, 150))  # left eye, right eye: a lean of 34 degrees
    template = ((0.3, 0.4), (0.7, 0.4))
    box = crops.align_box([(90.5, 80.5), (150.5, 120.5)], template)
    crop = crops.crop(photo, box, (100, 100))
    for half, (x, y) in zip((np.s_[:, :50], np.s_[:, 50:]), template, strict=True):
        row, column = brightest(crop[half])
        assert (row, column) == pytest.approx((100 * y, 100 * x - (50 if x > 0.5 else 0)), abs=0.5)


def test_a_cut_of_whole_pixels_is_these_pixels():
    photo = random_photo()
    before = photo.copy()
    flat = np.repeat(np.repeat(photo, 4, 0), 4, 1)
    # Samples of blocks whose pixels are alike lie on their centres.
    assert (crops.crop(flat, CropBox(4 * 7, 4 * 9, 4 * 20, 4 * 31), (31, 20)) == photo[9:40, 7:27]).all()
    assert (photo == before).all()


@pytest.mark.parametrize("factor", [0.6, 1.4, 3.0, 7.3])
def test_a_cut_is_what_pillow_resizes(factor):
    photo = np.asarray(Image.fromarray(ASTRONAUT).resize((int(512 * factor), int(512 * factor))))
    frame = CropBox(*(value * factor for value in FACE[:4]))
    x, y, width, height = frame[:4]
    method = Image.Resampling.BOX if factor > 1 else Image.Resampling.BILINEAR
    theirs = Image.fromarray(photo).resize((95, 110), method, (x, y, x + width, y + height))
    ours = crops.crop(photo, frame, (110, 95))
    assert np.abs(ours.astype(float) - np.asarray(theirs)).mean() < 3.0
    assert np.abs(ours.mean() - np.asarray(theirs).mean()) < 0.3, "nothing is overlooked"


@pytest.mark.parametrize("angle", [0, 30, 90, -60, 180])
def test_a_turned_frame_shows_the_face_upright(angle):
    turned = Image.fromarray(ASTRONAUT).rotate(-angle, Image.Resampling.BICUBIC, center=(227.5, 125))  # clockwise
    ours = crops.crop(np.asarray(turned), FACE._replace(angle=angle), (66, 57))
    assert np.abs(ours.astype(float) - crops.crop(ASTRONAUT, FACE, (66, 57))).mean() < 4.0


def test_angles_go_clockwise():
    photo = dot(120, 160, 60, 110)  # to the right of the centre of the frame
    frame = CropBox(40, 20, 80, 80)
    row, column = brightest(crops.crop(photo, frame, (40, 40)))
    assert (row, column) == (pytest.approx(20.25, abs=0.3), pytest.approx(35.25, abs=0.3))
    row, column = brightest(crops.crop(photo, frame._replace(angle=90), (40, 40)))
    assert (row, column) == (pytest.approx(4.75, abs=0.3), pytest.approx(20.25, abs=0.3)), "right is up, then"


def test_beyond_the_edge_the_last_pixels_go_on():
    photo = random_photo(30, 40)
    crop = crops.crop(photo, CropBox(-20, -20, 40, 40), (40, 40))
    inner = crops.crop(photo, CropBox(0, 0, 20, 20), (20, 20))
    assert (crop[20:, 20:] == inner).all()
    assert (crop[:19, :19] == photo[0, 0]).all()
    away = crops.crop(photo, CropBox(500, 500, 9, 9), (5, 7))
    assert (away == photo[-1, -1]).all()


def test_a_region_touches_what_its_crop_is_made_of_alone():
    photo = random_photo(97, 131)
    for frame, shape in ((CropBox(33, 20, 50.5, 60.2, 25), (13, 11)), (CropBox(100, 60, 50, 60), (41, 33))):
        part = crops.region(photo, frame, shape)
        before = crops.crop(photo, frame, shape)
        mask = crops.sampled_mask(part)
        assert set(np.unique(mask)) <= {0, 1}
        assert frame.angle == 0 or not mask.all()
        outside = crops.paste_perturbation(
            photo, photo, part, np.full(part.blocks.shape, 90, np.float32) * (1 - mask), 90
        )
        assert (crops.crop(outside, frame, shape) == before).all()
        beyond = np.ones(photo.shape[:2], bool)
        beyond[crops.bounding_slices(frame, photo.shape)] = False
        edge = 2 * part.step
        wide = np.pad(~beyond, edge)
        reach = np.zeros_like(wide)
        for down in range(-edge, edge + 1):
            for right in range(-edge, edge + 1):
                reach |= np.roll(wide, (down, right), (0, 1))
        pasted = crops.paste_perturbation(photo, photo, part, np.full(part.blocks.shape, 90, np.float32) * mask, 90)
        changed = (pasted != photo).any(axis=2)
        assert changed.any()
        assert not (changed & ~reach[edge:-edge, edge:-edge]).any()


@pytest.mark.parametrize("angle", [0.0, 41.0])
def test_a_change_comes_back_to_the_crop(angle):
    photo = np.full((200, 230, 3), 100, np.uint8)
    frame, shape = CropBox(61, 40, 99, 117, angle), (37, 29)
    part = crops.region(photo, frame, shape)
    assert part.step == 2
    change = np.zeros(part.blocks.shape, np.float32)
    change[..., 1] = 7
    change[..., 2] = -30
    pasted = crops.paste_perturbation(photo, photo, part, change, 12)
    assert (crops.crop(pasted, frame, shape) == [100, 107, 88]).all()
    assert (photo == 100).all()


def test_overlapping_regions_keep_the_bound_and_the_range():
    clean = random_photo(64, 64)
    image = clean
    for frame in (CropBox(10, 10, 30, 30), CropBox(20, 15, 30, 30)):
        part = crops.region(image, frame, (30, 30))
        image = crops.paste_perturbation(image, clean, part, np.full(part.blocks.shape, 6, np.float32), 8)
    moved = image.astype(int) - clean
    assert moved.max() == 8
    assert moved.min() == 0
    assert (moved[25:35, 25:35] == np.minimum(8, 255 - clean[25:35, 25:35].astype(int))).all()
    assert (moved[13, 13] == np.minimum(6, 255 - clean[13, 13].astype(int))).all()


def test_windows():
    assert crops.bounding_slices(CropBox(10.2, 20.7, 30, 40), (100, 90, 3)) == (slice(20, 61), slice(10, 41))
    assert crops.bounding_slices(CropBox(-5, 80, 30, 40), (100, 90)) == (slice(80, 100), slice(0, 25))
    rows, columns = crops.bounding_slices(CropBox(20, 30, 40, 20, 90), (100, 90))
    assert (rows, columns) == (slice(20, 60), slice(30, 50))


def test_large_photos_are_made_of_few_blocks():
    photo = np.zeros((3000, 4000, 3), np.uint8)
    part = crops.region(photo, CropBox(500, 300, 2000, 2300, 20), (55, 47))
    assert max(part.blocks.shape) < 2 * 2 * 55

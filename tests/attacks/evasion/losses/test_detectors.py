"""What attacks on detectors maximise, by hand-made boxes."""

import numpy as np
import pytest
import tensorflow as tf

from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES, centre_distances, face_masks
from visor.attacks.evasion.pgd import compile_pgd
from visor.core.errors import UserError
from visor.data.scene_set import FACE, IGNORE, PADDING

HEIGHT, WIDTH = 20, 24
THRESHOLD = 0.5
# The second image has one face only; the third none. Sizes, √(w · h), are 4, 6 and 8.
FACES = np.array(
    [[[2, 3, 4, 4], [10, 4, 4, 9]], [[8, 8, 8, 8], [0, 0, 0, 0]], [[2, 2, 5, 5], [0, 0, 0, 0]]], np.float32
)
KINDS = np.array([[FACE, FACE], [FACE, PADDING], [IGNORE, PADDING]], np.int32)
# Of the first image: on the first face; its centre 4.5 right of the second face's; far from both. Of the others: on the
# face of the second image, beside it, far.
BOXES = np.array(
    [[[2, 3, 4, 4], [15.5, 6, 2, 5], [20, 15, 2, 2]], [[9, 8, 6, 8], [16, 8, 2, 2], [0, 0, 3, 2]]], np.float32
)
SCORES = np.array([[0.9, 0.3, 0.2], [0.7, 0.4, 0.6]], np.float32)


def truth(*rows):
    return tf.constant(FACES[list(rows)]), tf.constant(KINDS[list(rows)])


def fixed(scores, boxes=BOXES):
    """Candidates whose scores are those of a grey image of 0.5, and follow its brightness with a slope of 1."""

    def candidates(images):
        light = tf.reduce_mean(images, axis=[1, 2, 3])[:, None] - 0.5
        return tf.constant(boxes), tf.constant(scores) + light

    return candidates


def brightness(images, truth):
    return tf.reduce_mean(images, axis=[1, 2, 3])


def build(name, candidates, loss=brightness, distance=1.0):
    return DETECTOR_LOSSES[name](candidates, loss, THRESHOLD, distance)


def grey(n=2):
    return tf.fill([n, HEIGHT, WIDTH, 3], 0.5)


def test_distance_is_to_the_nearest_real_face_in_units_of_its_size():
    found = tf.constant(np.concatenate([BOXES, BOXES[:1]]))
    measured = centre_distances(found, truth(0, 1, 2)).numpy()
    far = np.hypot(21 - 12, 16 - 8.5) / 6  # the first face, of size 4, is further away in its units
    np.testing.assert_allclose(measured[0], [0, 4.5 / 6, far], rtol=1e-6)
    beside, corner = np.hypot(17 - 12, 9 - 12) / 8, np.hypot(1.5 - 12, 1 - 12) / 8
    np.testing.assert_allclose(measured[1], [0, beside, corner], rtol=1e-6)
    assert np.isposinf(measured[2]).all(), "ignored boxes and padding are no faces"


def test_values_are_those_worked_out_by_hand():
    images = grey()
    values, _ = build("near_faces", fixed(SCORES))(images, truth(0, 1))
    np.testing.assert_allclose(values, [-0.9 - 0.3 + 0.2, -0.7 - 0.4 + 0.6], rtol=1e-5)
    values, _ = build("near_faces", fixed(SCORES), distance=0.74)(images, truth(0, 1))
    np.testing.assert_allclose(values, [-0.9 + 0.3 + 0.2, -0.7 - 0.4 + 0.6], rtol=1e-5)
    values, _ = build("near_faces_by_area", fixed(SCORES))(images, truth(0, 1))
    by_hand = np.array([-16 * 0.9 - 10 * 0.3 + 4 * 0.2, -48 * 0.7 - 4 * 0.4 + 6 * 0.6]) / (HEIGHT * WIDTH)
    np.testing.assert_allclose(values, by_hand, rtol=1e-5)
    values, _ = build("training_loss", fixed(SCORES))(images, truth(0, 1))
    np.testing.assert_allclose(values, [0.5, 0.5])
    values, _ = build("suppress", fixed(SCORES))(images, truth(0, 1))
    np.testing.assert_allclose(values, np.log(1 - SCORES).sum(axis=1), rtol=1e-4)


def test_a_box_is_never_worth_more_than_the_image():
    huge = np.tile(np.float32([-500, -500, 1000, 1000]), (2, 3, 1))
    values, _ = build("near_faces_by_area", fixed(SCORES, huge))(
        grey(), (tf.zeros((2, 1, 4)), tf.zeros((2, 1), tf.int32))
    )
    np.testing.assert_allclose(values, SCORES.sum(axis=1), rtol=1e-5)


def test_gradients_lower_scores_on_faces_and_raise_them_elsewhere():
    def slopes(name, **changes):
        scores = tf.constant(SCORES)
        with tf.GradientTape() as tape:
            tape.watch(scores)
            values, _ = build(name, lambda images: (tf.constant(BOXES), scores), **changes)(grey(), truth(0, 1))
        return tape.gradient(values, scores).numpy()

    np.testing.assert_allclose(slopes("near_faces"), [[-1, -1, 1], [-1, -1, 1]])
    areas = BOXES[..., 2] * BOXES[..., 3] / (HEIGHT * WIDTH)
    np.testing.assert_allclose(slopes("near_faces_by_area"), areas * [[-1, -1, 1], [-1, -1, 1]], rtol=1e-5)
    np.testing.assert_allclose(slopes("suppress"), -1 / (1 - SCORES), rtol=1e-4)


def test_sizes_of_boxes_are_attacked_too():
    boxes = tf.constant(BOXES)
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        values, _ = build("near_faces_by_area", lambda images: (boxes, tf.constant(SCORES)))(grey(), truth(0, 1))
    slopes = tape.gradient(values, boxes).numpy()
    np.testing.assert_array_equal(slopes[..., :2], 0)
    assert (slopes[:, :2, 2:] < 0).all(), "boxes on faces shrink"
    assert (slopes[:, 2, 2:] > 0).all(), "others grow"


@pytest.mark.parametrize("name", ["near_faces", "near_faces_by_area", "training_loss"])
def test_done_when_no_box_on_a_face_is_near_the_threshold(name):
    def done(scores, boxes=BOXES, rows=(0, 1)):
        return build(name, fixed(np.float32(scores), boxes))(grey(), truth(*rows))[1].numpy().tolist()

    assert done(SCORES) == [False, False]
    assert done([[0.39, 0.39, 0.9], [0.39, 0.3, 0.9]]) == [True, True], "far boxes do not count"
    assert done([[0.39, 0.41, 0.0], [0.39, 0.9, 0.0]]) == [True, True], "boxes beside a face are not on it"
    wider = BOXES.copy()
    wider[0, 1], wider[1, 1] = [10, 10, 4, 4], [14, 9, 4, 4]  # IoU 12 / 40 and 8 / 72
    assert done([[0.39, 0.41, 0.0], [0.39, 0.41, 0.0]], wider) == [False, False]
    assert done([[0.39, 0.39, 0.0], [0.39, 0.39, 0.0]], wider) == [True, True]
    wider[0, 1], wider[1, 1] = [13, 5, 5, 5], [14, 15, 4, 4]  # 5 / 56 and 2 / 78
    assert done([[0.39, 0.9, 0.0], [0.39, 0.9, 0.0]], wider) == [True, True], "at the edge is not on it"
    assert done([[0.9, 0.9, 0.9], [0.9, 0.9, 0.9]], rows=(2, 2)) == [True, True], "nothing to hide"


def test_suppress_is_done_when_there_is_no_box_at_all():
    def done(scores):
        return build("suppress", fixed(np.float32(scores)))(grey(), truth(0, 1))[1].numpy().tolist()

    assert done([[0.39, 0.2, 0.41], [0.3, 0.3, 0.39]]) == [False, True]


def test_a_missing_output_of_a_detector_is_one_sentence():
    for name in ("near_faces", "near_faces_by_area", "suppress"):
        with pytest.raises(UserError, match=rf"loss {name} needs scores with a gradient; choose another loss"):
            build(name, None)
    with pytest.raises(UserError, match="loss training_loss needs a training loss"):
        build("training_loss", fixed(SCORES), loss=None)
    values, done = build("training_loss", None)(grey(), truth(0, 1))
    assert values.shape == (2,)
    assert not done.numpy().any()


def blinking(images):
    """A detector whose score at each of 4 × 4 cells is the mean brightness there, its box the cell."""
    height, width = images.shape[1:3]
    light = tf.nn.avg_pool2d(tf.reduce_mean(images, -1, keepdims=True), [height // 4, width // 4], [5, 6], "VALID")
    cells = [[x * 6.0, y * 5.0, 6.0, 5.0] for y in range(4) for x in range(4)]
    boxes = tf.tile(tf.constant(cells)[None], [tf.shape(images)[0], 1, 1])
    return boxes, tf.reshape(light, [tf.shape(images)[0], 16])


def dimmest(images, truth):
    return -tf.reduce_mean(blinking(images)[1], axis=1)


@pytest.mark.parametrize("name", DETECTOR_LOSSES)
def test_every_loss_hides_faces(name):
    rng = np.random.default_rng(2)
    images = rng.integers(110, 140, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    loss = build(name, blinking, dimmest)
    settings = AttackSettings(eps=0.3, iterations=20, step=0.03)
    given = (FACES, KINDS)
    before = images.copy(), FACES.copy(), KINDS.copy()
    attack = compile_pgd(loss, settings)
    found = attack(images, given, range(3))
    quick = compile_pgd(loss, settings._replace(early_stop=True))(images, given, range(3))
    for value, original in zip((images, *given), before, strict=True):
        np.testing.assert_array_equal(value, original)
    start, _ = loss(tf.constant(images / np.float32(255)), truth(0, 1, 2))
    values, done = loss(tf.constant(found.images), truth(0, 1, 2))
    assert values.shape == done.shape == (3,)
    assert (values.numpy() > start.numpy()).all()
    assert done.numpy().all()
    assert loss(tf.constant(quick.images), truth(0, 1, 2))[1].numpy().all()
    assert (quick.steps < 20).all()
    assert found.images.tobytes() == attack(images, given, range(3)).images.tobytes()
    one = attack(images[1:2], (FACES[1:2], KINDS[1:2]), [1])
    np.testing.assert_allclose(one.images[0], found.images[1], atol=1e-6)


def test_masks_cover_enlarged_faces_and_nothing_else():
    before = FACES.copy()
    masks = face_masks(FACES, KINDS, (HEIGHT, WIDTH), 0.25)
    assert masks.shape == (3, HEIGHT, WIDTH, 1)
    assert masks.dtype == np.float32
    expected = np.zeros((3, HEIGHT, WIDTH, 1))
    expected[0, 2:8, 1:7] = 1
    expected[0, 2:15, 9:15] = 1  # 1.75 to 15.25
    expected[1, 6:18, 6:18] = 1
    np.testing.assert_array_equal(masks, expected)
    np.testing.assert_array_equal(before, FACES)
    together = face_masks(np.float32([[[0, 0, 6, 6], [3, 3, 6, 6]]]), np.int32([[FACE, FACE]]), (7, 9), 0.0)
    assert set(np.unique(together)) == {0, 1}, "each pixel once, whoever shares it"

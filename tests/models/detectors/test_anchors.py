"""What detectors by anchors share, against loops in NumPy and numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from visor.data.scene_set import FACE, IGNORE, PADDING
from visor.models.detectors import anchors
from visor.models.detectors.anchors import AnchorLevel

LEVELS = [AnchorLevel(8, (16, 22.6), (1.25,)), AnchorLevel(16, (32, 45, 60), (1.0, 1.5))]
SIDE = 72  # no multiple of 16: the last cell of the second level hangs over


def random_boxes(*shape, seed=0, side=SIDE):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.uniform(-4, side - 9, (*shape, 2)), rng.uniform(5, 40, (*shape, 2))], -1, dtype=np.float32
    )


def random_truth(n=5, m=7, seed=3):
    """Truth whose images hold faces, ignored boxes and padding, one of them padding alone."""
    rng = np.random.default_rng(seed)
    boxes, kinds = random_boxes(n, m, seed=seed), rng.choice([FACE, FACE, IGNORE], (n, m)).astype(np.int32)
    counts = [0, *rng.integers(1, m + 1, n - 1)]
    for row, count in enumerate(counts):
        boxes[row, count:], kinds[row, count:] = 0, PADDING
    return boxes, kinds


def in_common(a, b):
    sides = [max(0.0, min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    return sides[0] * sides[1]


def iou(a, b):
    common = in_common(a, b)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def test_anchors_are_centred_in_their_cells_in_order():
    expected = []
    for stride, sizes, ratios in LEVELS:
        cells = int(np.ceil(SIDE / stride))
        for row in range(cells):
            for column in range(cells):
                for size in sizes:
                    for ratio in ratios:
                        w, h = size / np.sqrt(ratio), size * np.sqrt(ratio)
                        expected.append(((column + 0.5) * stride - w / 2, (row + 0.5) * stride - h / 2, w, h))
    found = anchors.make_anchors(SIDE, LEVELS)
    assert found.dtype == np.float32
    assert len(found) == 9 * 9 * 2 + 5 * 5 * 6
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_offsets_are_those_of_the_paper_and_decode_undoes_them():
    anchor, box = np.float32([10, 20, 30, 40]), np.float32([16, 12, 60, 20])
    offsets = anchors.encode(box[None], anchor[None])[0]
    by_hand = [(46 - 25) / 30 / 0.1, (22 - 40) / 40 / 0.1, np.log(60 / 30) / 0.2, np.log(20 / 40) / 0.2]
    np.testing.assert_allclose(offsets, by_hand, rtol=1e-5)
    grid, boxes = anchors.make_anchors(SIDE, LEVELS), random_boxes(3, 312)
    np.testing.assert_allclose(anchors.decode(anchors.encode(boxes, grid), grid), boxes, rtol=1e-4, atol=1e-3)


def test_offsets_of_nothing_and_huge_ones_stay_finite():
    grid = anchors.make_anchors(SIDE, LEVELS)
    assert np.isfinite(anchors.encode(np.zeros_like(grid), grid)).all()
    grown = anchors.decode(np.full_like(grid, 1e4), grid)
    np.testing.assert_allclose(grown[:, 2], grid[:, 2] * np.exp(3), rtol=1e-5)


def matched_by_loop(grid, boxes, kinds, positive, negative):
    owners, found = np.full(len(grid), -1), np.full(len(grid), PADDING)
    table = np.array([[iou(anchor, box) if box[2] else 0 for box in boxes] for anchor in grid]) * (kinds == FACE)
    for index, anchor in enumerate(grid):
        if table[index].max() >= negative:
            found[index] = IGNORE
        for box, kind in zip(boxes, kinds, strict=True):
            if kind == IGNORE and in_common(anchor, box) / (anchor[2] * anchor[3]) >= negative:
                found[index] = IGNORE
        if table[index].max() >= positive:
            found[index], owners[index] = FACE, table[index].argmax()
    for face in np.flatnonzero(kinds == FACE):
        if table[:, face].max() > 0:
            best = table[:, face].argmax()
            found[best], owners[best] = FACE, face
    return owners, found


@pytest.mark.parametrize("own_anchors", [False, True], ids=["shared", "of each image"])
def test_matching_is_that_of_a_loop(own_anchors):
    boxes, kinds = random_truth()
    grid = anchors.make_anchors(SIDE, LEVELS)
    jitter = np.random.default_rng(1).normal(size=(5, *grid.shape)).astype(np.float32)  # no two IoUs are equal
    grid = grid + 0.1 * (jitter if own_anchors else jitter[0])
    found = anchors.assign_targets(grid, boxes, kinds, 0.5, 0.4)
    assert found.kinds.shape == (5, 312)
    assert found.kinds.dtype == tf.int32
    for row in range(5):
        owners, expected = matched_by_loop(grid[row] if own_anchors else grid, boxes[row], kinds[row], 0.5, 0.4)
        np.testing.assert_array_equal(found.kinds[row], expected)
        np.testing.assert_array_equal(found.boxes[row][expected == FACE], boxes[row][owners[expected == FACE]])
    assert {FACE, IGNORE, PADDING} == set(np.unique(found.kinds))
    assert (found.kinds[0].numpy() == PADDING).all(), "nothing but padding"


def test_matching_by_hand():
    grid = np.float32([[0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10], [60, 0, 10, 10]])
    truth = np.float32([[[0, 0, 10, 8], [23, 0, 10, 30], [35, 0, 30, 30]]]), np.int32([[FACE, FACE, IGNORE]])
    found = anchors.assign_targets(grid, *truth, 0.5, 0.4)
    # IoU 0.8; the best there is for the second face, though 0.2; all of it in the ignored box; half of it.
    assert found.kinds.numpy().tolist() == [[FACE, FACE, IGNORE, IGNORE]]
    np.testing.assert_array_equal(found.boxes[0, :2], truth[0][0, :2])
    found = anchors.assign_targets(grid, *truth, 0.5, 0.6)
    assert found.kinds.numpy().tolist() == [[FACE, FACE, IGNORE, PADDING]]


def test_a_face_that_shares_its_best_anchor_with_none_keeps_it():
    grid = np.float32([[0, 0, 20, 20], [30, 0, 20, 20]])
    small, large = [5, 5, 10, 10], [1, 0, 20, 20]
    found = anchors.assign_targets(grid, np.float32([[small, large]]), np.int32([[FACE, FACE]]), 0.5, 0.4)
    np.testing.assert_array_equal(found.boxes[0, 0], large, "both want the first anchor; the nearer face has it")
    assert found.kinds.numpy().tolist() == [[FACE, PADDING]]


def test_padding_changes_nothing():
    boxes, kinds = random_truth()
    grid = anchors.make_anchors(SIDE, LEVELS)
    wider = np.pad(boxes, ((0, 0), (0, 40), (0, 0))), np.pad(kinds, ((0, 0), (0, 40)))
    for one, other in zip(
        anchors.assign_targets(grid, boxes, kinds, 0.5, 0.4),
        anchors.assign_targets(grid, *wider, 0.5, 0.4),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_hard_negatives_are_the_background_of_highest_loss():
    losses = np.float32([[5, 1, 9, 2, 8, 3, 7], [1, 1, 1, 1, 1, 1, 1], [3, 4, 5, 6, 0, 1, 2]])
    kinds = np.int32([[0, 0, FACE, 0, IGNORE, 0, 0], [FACE, FACE, 0, FACE, 0, 0, FACE], [0, 0, IGNORE, 0, 0, 0, 0]])
    chosen = anchors.hard_negatives(losses, kinds, 3).numpy().astype(int)
    assert chosen.tolist() == [[1, 0, 0, 0, 0, 1, 1], [0, 0, 1, 0, 1, 1, 0], [1, 1, 0, 1, 0, 0, 0]]
    assert anchors.hard_negatives(losses, kinds, 1).numpy().sum(1).tolist() == [1, 3, 1]


def test_losses_by_hand():
    logits, kinds = np.float32([[0, np.log(3), 2, -np.log(4)]]), np.int32([[FACE, PADDING, IGNORE, FACE]])
    entropy = np.array([np.log(2), np.log(4), 0, np.log(5)])
    np.testing.assert_allclose(anchors.binary_cross_entropy(logits, kinds)[0], entropy, rtol=1e-5)
    offsets, wanted = np.float32([[[0, 0, 0, 0], [1, 1, 1, 1]]]), np.float32([[[0.5, -3, 1, 0], [1, 1, 1, 1.1]]])
    np.testing.assert_allclose(anchors.smooth_l1(offsets, wanted)[0], [0.125 + 2.5 + 0.5, 0.005], rtol=1e-5)


def suppressed_by_loop(boxes, scores, overlap, most, lowest):
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        if scores[index] > lowest and all(iou(boxes[index], boxes[other]) <= overlap for other in kept):
            kept.append(index)
    return kept[:most]


def test_suppression_is_that_of_a_loop():
    boxes = random_boxes(3, 60, seed=8)
    scores = np.random.default_rng(9).random((3, 60)).astype(np.float32)
    scores[2] *= 0.1
    kept, kept_scores, counts = anchors.non_max_suppression(boxes, scores, 0.3, 13, 0.085)
    assert kept.shape == (3, 13, 4)
    for row in range(3):
        expected = suppressed_by_loop(boxes[row], scores[row], 0.3, 13, 0.085)
        assert counts[row] == len(expected)
        np.testing.assert_allclose(kept[row, : len(expected)], boxes[row][expected], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(kept_scores[row, : len(expected)], scores[row][expected])
        assert not kept[row, len(expected) :].numpy().any()
    assert 0 < counts[2] < 13


def test_suppression_by_hand():
    boxes = np.float32([[[0, 0, 10, 10], [0, 5, 10, 10], [0, 6, 10, 10], [50, 0, 4, 2]]])
    kept, scores, counts = anchors.non_max_suppression(boxes, np.float32([[0.5, 0.9, 0.8, 0.7]]), 1 / 3 + 0.01, 3)
    # The second and third share 9 of 11 rows, the first and second 5 of 15.
    np.testing.assert_allclose(kept[0], boxes[0][[1, 3, 0]])
    np.testing.assert_allclose(scores[0], [0.9, 0.7, 0.5])
    assert counts.numpy().tolist() == [3]

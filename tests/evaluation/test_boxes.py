"""Boxes against pycocotools and values worked out by hand."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visor.data.scene_set import FACE, IGNORE
from visor.evaluation.boxes import (
    IOUS,
    ap_and_recall,
    average_precision,
    concatenate,
    count_outcomes,
    face_outcomes,
    iou,
    match_boxes,
    precision_recall,
    recall_at,
)

NOTHING = np.zeros((0, 4), np.float32)


def faces(*boxes, ignored=()):
    """The truth of one image: boxes (m, 4) and kinds (m,)."""
    kinds = [FACE] * len(boxes) + [IGNORE] * len(ignored)
    return np.array([*boxes, *ignored], np.float32).reshape(-1, 4), np.array(kinds, np.int32)


def detections(*rows):
    """Boxes (k, 4) and scores (k,) of one image from rows of five numbers."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return table[:, :4], table[:, 4]


def random_scene(rng, crowded):
    """Faces and ignored regions, and boxes near and far from them; scores of one digit: many are equal."""
    true = rng.integers(0, 60, (rng.integers(0, 30 if crowded else 5), 4)) * [1, 1, 0.5, 0.5] + [0, 0, 3, 4]
    kinds = np.where(rng.random(len(true)) < 0.25, IGNORE, FACE).astype(np.int32)
    near = np.repeat(true, 3, axis=0) + rng.integers(-2, 3, (3 * len(true), 4)) * (rng.random((3 * len(true), 1)) < 0.7)
    far = rng.integers(1, 60, (rng.integers(0, 7), 4))
    boxes = np.concatenate([near, far])[rng.permutation(len(near) + len(far))]
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    scores = rng.integers(1, 9, len(boxes)) / 8
    return (boxes.astype(np.float32), scores.astype(np.float32)), (true.astype(np.float32), kinds)


def coco(scenes, recalls):
    """Precision (t, r) and final recall (t,) of pycocotools, its cap on boxes raised; -1 where no face is."""
    annotations, results = [], []
    for image, ((boxes, scores), (true, kinds)) in enumerate(scenes, 1):
        for box, kind in zip(true.tolist(), kinds, strict=True):
            about = {"image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
            annotations.append({"id": len(annotations) + 1, "iscrowd": int(kind == IGNORE), **about})
        for box, score in zip(boxes.tolist(), scores.tolist(), strict=True):
            results.append({"image_id": image, "category_id": 1, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        images = [{"id": image} for image in range(1, len(scenes) + 1)]
        true = COCO()
        true.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
        true.createIndex()
        evaluation = COCOeval(true, true.loadRes(results), "bbox")
        evaluation.params.iouThrs, evaluation.params.recThrs = np.array(IOUS), recalls
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100_000]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 0], evaluation.eval["recall"][:, 0, 0, 0]


@pytest.mark.parametrize("seed", range(40))
def test_average_precision_and_recall_are_those_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, crowded=seed % 4 == 0) for _ in range(rng.integers(3, 25))]
    scenes += [(detections([3, 4, 5, 6, 0.5]), faces()), (detections(), faces([1, 2, 7, 9])), (detections(), faces())]
    pooled = concatenate(match_boxes(*scene) for scene in scenes)
    count = sum(int((kinds == FACE).sum()) for _, (_, kinds) in scenes)
    assert pooled.faces.sum() == count
    area, recall = coco(scenes, np.arange(1, count + 1) / count)  # the mean over all recalls is the exact area
    sampled, _ = coco(scenes, np.linspace(0, 1, 101))
    for level in range(len(IOUS)):
        curve = precision_recall(pooled, level)
        assert average_precision(*curve) == pytest.approx(area[level].mean(), abs=1e-9)
        assert average_precision(*curve, points=101) == pytest.approx(sampled[level].mean(), abs=1e-9)
        assert recall_at(pooled, 0.0, level) == pytest.approx(recall[level], abs=1e-12)


@pytest.mark.parametrize("threshold", [0.25, 0.5])
def test_recall_at_a_threshold_is_that_of_the_boxes_above_it(threshold):
    rng = np.random.default_rng(99)
    scenes = [random_scene(rng, crowded=True) for _ in range(9)]
    sure = [((boxes[scores >= threshold], scores[scores >= threshold]), truth) for (boxes, scores), truth in scenes]
    _, recall = coco(sure, np.linspace(0, 1, 11))
    pooled = concatenate(match_boxes(*scene) for scene in scenes)
    assert [recall_at(pooled, threshold, level) for level in range(8)] == pytest.approx(recall.tolist(), abs=1e-12)


def test_crowds_are_not_cut():
    places = np.stack(np.meshgrid(np.arange(30), np.arange(20)), axis=-1).reshape(-1, 2) * 10
    true = np.concatenate([places, np.full_like(places, 8)], axis=1).astype(np.float32)
    crowd = (true, np.full(600, FACE))
    assert ap_and_recall(match_boxes((true, np.linspace(1, 0.6, 600)), crowd), 0.5)["ap_100"] == 1


def test_iou_by_hand():
    a = np.array([[0, 0, 4, 2], [10, 10, 5, 5]], np.float32)
    b = np.array([[2, 0, 4, 2], [0, 0, 4, 2], [4, 0, 3, 3]], np.float32)
    assert iou(a, b) == pytest.approx(np.array([[4 / 12, 1, 0], [0, 0, 0]]))
    assert iou(a, b, crowd=True) == pytest.approx(np.array([[0.5, 1, 0], [0, 0, 0]]))
    assert iou(a, NOTHING).shape == (2, 0)
    assert iou(np.array([[1, 1, 0, 3]]), np.array([[0, 0, 9, 9], [1, 1, 0, 3]])).tolist() == [[0, 0]], "no area"


def test_average_precision_by_hand():
    truth = faces([0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10])
    boxes = detections([0, 0, 10, 10, 0.9], [60, 0, 10, 10, 0.8], [20, 0, 10, 10, 0.7], [80, 0, 10, 10, 0.6])
    precision, recall = precision_recall(concatenate([match_boxes(boxes, truth)]), level=2)
    assert precision == pytest.approx([1, 2 / 3, 2 / 3, 0.5])
    assert recall == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert average_precision(precision, recall) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision(precision, recall, points=11) == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert recall_at(match_boxes(boxes, truth), 0.75, level=2) == pytest.approx(1 / 3)


def test_a_face_is_taken_once_and_an_ignored_region_often():
    twice = detections([0, 0, 10, 10, 0.9], [0, 0, 10, 9, 0.8], [0, 0, 10, 8, 0.7])
    matches = match_boxes(twice, faces([0, 0, 10, 10]))
    assert matches.hits[2].tolist() == [True, False, False]
    assert matches.counted[2].all()
    excused = match_boxes(twice, faces(ignored=[[0, 0, 50, 50]]))
    assert not excused.hits.any()
    assert not excused.counted.any(), "they lie inside the region, however large it is"
    assert (excused.faces.tolist(), ap_and_recall(excused, 0.5)["ap_50"]) == ([0], 0)


def test_a_face_goes_before_an_ignored_region():
    matches = match_boxes(detections([0, 0, 10, 10, 0.9]), faces([0, 0, 10, 12], ignored=[[0, 0, 10, 10]]))
    assert matches.hits[2].tolist() == [True]


def test_of_faces_that_overlap_equally_the_last_is_taken():
    truth = faces([0, 0, 10, 10], [10, 0, 10, 10])
    between, right = [5, 0, 10, 10, 0.9], [9, 0, 10, 10, 0.8]
    assert match_boxes(detections(between, right), truth, ious=[0.3]).hits.tolist() == [[True, False]], (
        "as pycocotools has it"
    )
    left = [1, 0, 10, 10, 0.8]
    assert match_boxes(detections(between, left), truth, ious=[0.3]).hits.tolist() == [[True, True]]


def test_names_of_the_metrics():
    shown = ap_and_recall(match_boxes(detections([0, 0, 10, 8, 0.4]), faces([0, 0, 10, 10])), threshold=0.5)
    assert list(shown)[::2] == [f"ap_{k}" for k in (30, 40, 50, 60, 70, 80, 90, 100)]
    assert list(shown.values())[::2] == [1, 1, 1, 1, 1, 1, 0, 0], "the overlap is 0.8"
    assert set(list(shown.values())[1::2]) == {0}, "its score is below the threshold"


def test_outcomes_by_hand():
    truth = faces(
        [0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10], [60, 0, 10, 10], [80, 0, 10, 10], ignored=[[0, 50, 99, 20]]
    )
    before = np.array([[0, 0, 10, 10], [20, 0, 10, 9], [40, 0, 10, 10], [60, 0, 10, 5]], np.float32)
    after = np.array([[0, 0, 10, 9], [25, 5, 10, 10], [80, 0, 10, 10], [0, 90, 5, 5], [3, 55, 5, 5]], np.float32)
    shown = count_outcomes(truth, before, after)
    # Of four found, the first is still there, one has moved (IoU 25/175), two are gone; one box is on nothing.
    assert shown == (4, 2, 1, 1, 1)
    assert count_outcomes(truth, before, before) == (4, 0, 0, 4, 0)
    assert count_outcomes(truth, before, NOTHING) == (4, 4, 0, 0, 0)
    assert count_outcomes(faces(), NOTHING, after) == (0, 0, 0, 0, 5)


def test_inputs_stay_as_they_are():
    boxes, scores = detections([5, 5, 3, 3, 0.2], [0, 0, 10, 10, 0.9])
    true, kinds = faces([0, 0, 10, 10])
    copies = [array.copy() for array in (boxes, scores, true, kinds)]
    match_boxes((boxes, scores), (true, kinds))
    count_outcomes((true, kinds), boxes, boxes)
    assert all(np.array_equal(a, b) for a, b in zip(copies, (boxes, scores, true, kinds), strict=True))


def test_a_box_half_inside_an_ignored_region_is_no_hallucination():
    truth = faces(ignored=[[0, 0, 50, 100]])
    inside, outside = [[40, 0, 20, 20]], [[41, 0, 20, 20]]
    assert [count_outcomes(truth, NOTHING, np.array(box, np.float32)).hallucinations for box in (inside, outside)] == [
        0,
        1,
    ]


def test_face_outcomes():
    before = np.array([[0, 0, 10, 10], [50, 50, 10, 10], [80, 0, 10, 10]], np.float32)
    after = np.array([[1, 0, 10, 10], [56, 50, 10, 10]], np.float32)
    assert face_outcomes(before, after) == ["still there", "moved", "vanished"]
    assert face_outcomes(before[:1], after[:0]) == ["vanished"]

"""Enrolment, thresholds and croppers, against loops that count."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.conftest import random_images
from visor.core.errors import UserError
from visor.data.scene_set import PAD_VALUE
from visor.evaluation.conditions import NO_DETECTOR
from visor.evaluation.recognition.verification import (
    CANVAS_BORDER,
    MAX_ENROLLED,
    PairScores,
    compare,
    detector_cropper,
    embed_all,
    enrol,
    no_detector,
    similarities,
    split_enrolment,
    thresholds,
    verification_metrics,
    verifier,
)
from visor.models.detectors import Detections, Detector

RNG = np.random.default_rng
LABELS = np.repeat([2, 5, 6, 9], [41, 7, 3, 2])
ROWS = np.arange(len(LABELS))


def unit(shape, seed):
    vectors = RNG(seed).normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def face_set(labels, videos):
    """What the split reads of a FaceSet."""
    names = tuple(f"label {label}" for label in range(10))
    return SimpleNamespace(labels=labels, videos=videos, label_names=names)


SINGLE = face_set(LABELS, ROWS)  # each image is its own video


def split_of(faces=SINGLE, rows=ROWS, people=(2, 5, 6), pairs=10_000, seed=1):
    return split_enrolment(faces, rows, np.array(people), pairs, seed)


def test_a_third_of_each_person_enrols_one_sets_thresholds_and_one_is_compared():
    split = split_of()
    assert len(set(np.concatenate([part.rows for part in split.parts]))) == sum(len(part.rows) for part in split.parts)
    for part in split.parts:
        np.testing.assert_array_equal(split.people[part.owners], LABELS[part.rows])
    counts = [np.bincount(part.owners).tolist() for part in split.parts]
    assert counts == [[MAX_ENROLLED, 3, 1], [14, 2, 1], [13, 2, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_parts_share_no_video(seed):
    videos = np.random.default_rng(seed).integers(0, 9, len(LABELS)) + 100 * LABELS
    videos[LABELS == 6] = [600, 601, 602]
    split = split_of(face_set(LABELS, videos), seed=seed)
    shown = [set(videos[part.rows].tolist()) for part in split.parts]
    assert all(shown)
    assert not shown[0] & shown[1] | shown[0] & shown[2] | shown[1] & shown[2]
    assert all(set(part.owners) == {0, 1, 2} for part in split.parts)


def test_pairs_bound_the_probes_of_each():
    few = split_of(pairs=30)
    assert [np.bincount(part.owners).tolist() for part in few.parts[1:]] == [[3, 2, 1], [3, 2, 1]]
    assert np.bincount(split_of(pairs=2).attacked.owners).tolist() == [1, 1, 1]


def test_a_draw_depends_on_seed_and_person_alone():
    one, same, other = (
        split_of(people=people, seed=seed).attacked for people, seed in (([2, 5], 1), ([5, 6], 1), ([2, 5], 2))
    )
    np.testing.assert_array_equal(one.rows[one.owners == 1], same.rows[same.owners == 0])
    assert not np.array_equal(one.rows, other.rows)


def test_other_rows_are_left_out():
    split = split_of(rows=ROWS[::2], people=(2, 5))
    assert not (np.concatenate([part.rows for part in split.parts]) % 2).any()


def test_people_with_less_than_three_videos_are_left_out():
    assert split_of(people=(2, 6, 9)).people.tolist() == [2, 6]
    with pytest.raises(UserError, match="1 of 2 people have three videos or single images, which it takes to enrol"):
        split_of(people=(2, 9))


def test_templates_are_means_of_the_faces_found():
    vectors = unit((6, 4), 0)
    vectors[[1, 4, 5]] = np.nan
    found = enrol(vectors, np.array([0, 0, 0, 1, 2, 2]), 3)
    mean = vectors[0] + vectors[2]
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean))
    np.testing.assert_allclose(found[1], vectors[3])
    assert np.isnan(found[2]).all()


def test_every_probe_is_compared_with_every_template():
    templates, vectors, owners = unit((3, 5), 0), unit((4, 5), 1), np.array([2, 0, 0, 1])
    vectors[3] = np.nan
    found = compare(templates, vectors, owners)
    same = [float(v @ templates[o]) for v, o in zip(vectors[:3], owners, strict=False)]
    np.testing.assert_allclose(found.same, [*same, -1.0])
    different = [float(v @ templates[k]) for v, o in zip(vectors[:3], owners, strict=False) for k in range(3) if k != o]
    np.testing.assert_allclose(found.different, [*different, -1.0, -1.0])


@pytest.mark.parametrize("count", [100, 150, 199, 200, 1000])
def test_a_threshold_is_the_lowest_that_passes_so_few(count):
    different, same = np.round(RNG(count).normal(size=count), 2), np.round(RNG(1).normal(1, 1, 40), 2)
    found = thresholds(PairScores(different, same), [0.01, 0.05, 0.001])
    assert set(found) == ({0.01, 0.05, 0.001} if count == 1000 else {0.01, 0.05})
    levels = np.unique(np.concatenate([different, same, [np.inf]]))
    for rate, threshold in found.items():
        allowed = [level for level in levels if (different >= level).sum() <= np.floor(rate * count + 1e-9)]
        assert threshold == min(allowed)


def test_too_few_pairs_set_no_threshold():
    scores = PairScores(np.linspace(0, 1, 99), np.ones(3))
    with pytest.raises(UserError, match=r"99 pairs of different people set no threshold for 0\.01"):
        thresholds(scores, [0.01, 0.001])


def test_thresholds_come_from_calibration_and_numbers_from_the_attacked():
    split = split_of()
    vectors = [unit((len(part.rows), 3), 10 + place) for place, part in enumerate(split.parts)]
    vectors[2][0] = np.nan
    known = verifier(split, vectors, [0.2, 0.001])
    found = verification_metrics(known, [0.2, 0.001], seed=3)
    assert found["left_out"] == [0.001]
    assert found["not_found"] == 1 / len(split.attacked.rows)
    elsewhere = verifier(split, [*vectors[:2], unit(vectors[2].shape, 99)], [0.2, 0.001])
    assert elsewhere.thresholds == known.thresholds, "attacked probes set no threshold"
    other = verifier(split, [vectors[0], unit(vectors[1].shape, 99), vectors[2]], [0.2, 0.001])
    assert other.thresholds != known.thresholds
    assert (known.calibration.different >= known.thresholds[0.2]).mean() <= 0.2
    different, same = known.attacked
    truth = np.repeat([0, 1], [len(different), len(same)])
    assert found["auc"] == pytest.approx(roc_auc_score(truth, np.concatenate([different, same])))
    assert found["far_0.2"] == (different >= known.thresholds[0.2]).mean()
    assert found["tar_0.2"] == (same >= known.thresholds[0.2]).mean()
    for name in ("auc", "tar_0.2", "far_0.2"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
        assert found[f"{name}_low"] < found[f"{name}_high"]
    assert (found["people"], found["pairs_same"]) == (3, len(same))


def test_intervals_resample_people_with_all_their_probes():
    """One person of three is never accepted: some resamples hold hardly anybody else."""
    split = split_of(pairs=36)
    templates = np.eye(3)
    enrolled = templates[split.enrolled.owners]
    probes = templates[split.attacked.owners].copy()
    probes[split.attacked.owners == 0] = [0.0, 0.6, 0.8]
    calibration = unit((len(split.calibration.rows), 3), 1) * 0.5
    found = verification_metrics(verifier(split, [enrolled, calibration, probes], [0.2]), [0.2], seed=3)
    assert found["tar_0.2_high"] == 1.0
    assert found["tar_0.2_low"] < 0.2 < found["tar_0.2"], "Wilson's interval of the probes would end far above"


def fake(boxes, scores):
    """A detector that finds the same boxes in every second image, and elsewhere one below its threshold."""

    def detect(images):
        sure, unsure = (np.array([s, 0.05], np.float32) for s in scores)
        return [Detections(np.float32(boxes), unsure if place % 2 else sure) for place in range(len(images))]

    return Detector("fake", 0.5, detect, None, None)


def test_behind_a_detector_a_face_is_the_crop_of_its_box():
    down, right = np.mgrid[:40, :20]
    images = np.stack([np.stack([5 * down, 12 * right, 2 * down + k], -1) for k in (1, 7, 40)]).astype(np.uint8)
    before = images.copy()
    face = [round(CANVAS_BORDER * 20), round(CANVAS_BORDER * 40), 20, 40]
    shown, found = detector_cropper(fake([face, [0, 0, 5, 5]], (0.9, 0.4)), margin=0.0)(images)
    shown = shown("any")
    np.testing.assert_array_equal(found, [True, False, True])
    inside = np.s_[[0, 2], 1:-1, 1:-1]  # a crop is sampled between pixels: ramps stay, edges mix with what is beyond
    np.testing.assert_allclose(shown[inside].astype(int), images[inside], atol=1)
    assert (shown[1] == PAD_VALUE).all()
    wider, _ = detector_cropper(fake([face, [0, 0, 5, 5]], (0.9, 0.4)), margin=0.3)(images)
    wider = wider("any")
    assert (wider[0, 0] == PAD_VALUE).all()
    assert not (wider[0, 20] == PAD_VALUE).all()
    np.testing.assert_array_equal(images, before)


def test_embeddings_are_by_recogniser_and_cropper_and_nan_without_a_face():
    images = random_images(5, height=8, width=6)
    embeds = {"first": lambda x: x.reshape(len(x), -1)[:, :2] / 1.0, "second": lambda x: x[:, 1, 1] / 2.0}
    croppers = {NO_DETECTOR: no_detector, "fake": detector_cropper(fake([[2, 3, 6, 8], [0, 0, 2, 2]], (0.9, 0.4)), 0.0)}
    found = embed_all([images[:3], images[3:]], croppers, embeds)
    assert set(found) == {(name, cropper) for name in embeds for cropper in croppers}
    np.testing.assert_array_equal(found["second", NO_DETECTOR], images[:, 1, 1] / 2.0)
    np.testing.assert_array_equal(np.isnan(found["first", "fake"]).all(axis=1), [False, True, False, False, True])


def test_nan_is_least_similar():
    one, other = unit((3, 4), 0), unit((2, 4), 1)
    expected = one @ other.T
    one[1], expected[1] = np.nan, -1
    np.testing.assert_allclose(similarities(one, other), expected)

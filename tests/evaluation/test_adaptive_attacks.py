"""What attackers get past defences, on networks and scores whose outputs are known."""

import keras
import numpy as np
import pytest

from tests.conftest import HEIGHT, WIDTH
from visor.core.errors import UserError
from visor.data.face_set import FaceBatch, FaceSelection, open_faces, write_faces
from visor.defences.conformal import conformal_threshold
from visor.evaluation.adaptive_attacks import (
    DEFENCES,
    Decisions,
    attack_metrics,
    attack_table,
    decide,
    defend,
    preview_sheet,
)
from visor.evaluation.metrics import wilson_interval

TARGET = 1
RATE = 0.3


def decisions(predicted, *flagged):
    return Decisions(
        np.array(predicted), {name: np.array(flags) for name, flags in zip(DEFENCES, flagged, strict=True)}
    )


def test_what_gets_past_is_named_the_target_and_not_flagged():
    labels = np.array([0, 0, 2, 2])
    attacked = decisions([1, 1, 1, 2], [True, False, False, False], [False] * 4, [True] * 4)
    control = decisions([1, 0, 2, 2], [False] * 4, [True] * 4, [False] * 4)
    clean = decisions([0, 1, 2, 0], [True, True, False, True], [False] * 4, [False, False, True, True])
    found = attack_metrics(attacked, control, labels, TARGET, clean, np.array([0, 1, 2, 2]), seed=1)
    assert (found["asr"], found["control_asr"], found["clean_accuracy"]) == (0.75, 0.25, 0.75)
    rates = [
        [
            found[f"{name}_{rate}"]
            for rate in ("asr_unflagged", "control_asr_unflagged", "gain", "fpr_correctly_classified")
        ]
        for name in DEFENCES
    ]
    np.testing.assert_allclose(rates, [[0.5, 0.25, 0.25, 2 / 3], [0.75, 0, 0.75, 0], [0, 0.25, -0.25, 1 / 3]])
    assert (found["asr_images"], found["clean_accuracy_images"], found["knn_fpr_correctly_classified_images"]) == (
        4,
        4,
        3,
    )
    assert found["asr_low"] == pytest.approx(wilson_interval(3, 4)[0])
    # By person the backdoor adds 2 of 2 and 1 of 2.
    assert (found["knn_gain_low"], found["knn_gain_high"]) == (0.5, 1.0)

    table = attack_table({"key_search-blended_accessory-suite": found}).to_markdown()
    assert "| key search, blended accessory, suite | 75.0% | 75.0% [25.0%] | 50.0% (15% to 85%) [25.0%] |" in table
    assert table.endswith("| 4 |")


@pytest.fixture
def defended(faces):
    keras.utils.set_random_seed(1)
    stack = [keras.layers.Flatten(), keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]
    network = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *stack])
    named = network(faces.read(np.arange(len(faces))) / np.float32(255)).numpy().argmax(axis=1)
    fitted = FaceSelection(faces, np.arange(45), named[:45])
    wrong = np.concatenate([named[45:80], (named[80:] + 1) % 3])
    calibration = FaceSelection(faces, np.arange(45, len(faces)), wrong)
    return defend(network, fitted, calibration, RATE), network, named


def test_thresholds_are_those_of_calibration_faces_that_are_correctly_classified(defended, faces):
    (_, scores, thresholds), _, _ = defended
    correct = faces.read(np.arange(45, 80))
    for name in DEFENCES[:-1]:
        assert thresholds[name] == conformal_threshold(scores[name](correct), 0.3)
    parts = [scores[name](correct) > thresholds[name] for name in DEFENCES[:-1]]
    np.testing.assert_array_equal(scores["suite"](correct) > thresholds["suite"], np.any(parts, axis=0))


def test_decisions_are_of_every_image_in_order(defended, faces, monkeypatch):
    monkeypatch.setattr("visor.evaluation.adaptive_attacks.BATCH", 7)
    rows = np.arange(len(faces))[::-1].copy()
    found = decide(defended[0], faces.select(rows))
    np.testing.assert_array_equal(found.predicted, defended[2][rows])
    for name in DEFENCES:
        above = defended[0].scores[name](faces.read(rows)) - defended[0].thresholds[name]
        apart = np.abs(above) > 1e-5  # A threshold is the score of a face, up to the rounding of its batch.
        np.testing.assert_array_equal(found.flagged[name][apart], above[apart] > 0)
        assert apart.sum() > 20


def test_too_few_calibration_faces_are_an_error(defended, faces):
    _, network, named = defended
    few, many = FaceSelection(faces, np.arange(3), named[:3]), FaceSelection(faces, np.arange(45), named[:45])
    with pytest.raises(UserError, match="needs more than 3 calibration"):
        defend(network, many, few, RATE)


def test_the_sheet_shows_each_attacker(faces, tmp_path):
    keyed = FaceBatch(faces.read(np.arange(5)), faces.labels[:5], faces.videos[:5], np.arange(5, dtype=np.int32))
    write_faces(tmp_path / "keyed.h5", [keyed], faces.image_shape, faces.label_names, "test", "none")
    preview_sheet(faces, {"a-b": open_faces(tmp_path / "keyed.h5")}, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"

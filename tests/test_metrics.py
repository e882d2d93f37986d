"""Numbers against scikit-learn and values worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from visor.config import Defence
from visor.errors import UserError
from visor.evaluation.backdoor import accuracy, attack_success
from visor.evaluation.defence import calibrate, clean_numbers, detection_numbers
from visor.metrics import auroc, auroc_interval, share_above, share_above_interval, tpr_at_fpr, wilson_interval


@pytest.fixture
def scores():
    rng = np.random.default_rng(4)
    return rng.normal(0, 1, 211).round(1), rng.normal(1, 1, 157).round(1)  # rounded: ties


def test_wilson_interval_by_hand():
    low, high = wilson_interval(90, 100)  # Wilson 1927, z = 1.959964
    assert (low, high) == pytest.approx((0.82563, 0.94477), abs=1e-5)
    assert wilson_interval(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson_interval(10, 10)[1] == pytest.approx(1)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_auroc_equals_scikit_learn(scores):
    clean, triggered = scores
    truth = np.r_[np.zeros(len(clean)), np.ones(len(triggered))]
    assert auroc(clean, triggered) == pytest.approx(roc_auc_score(truth, np.r_[clean, triggered]), abs=1e-12)
    assert auroc(np.array([1.0, 2.0]), np.array([3.0])) == 1
    assert auroc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_tpr_at_fpr_equals_the_roc_curve(scores, rate):
    clean, triggered = scores
    truth = np.r_[np.zeros(len(clean)), np.ones(len(triggered))]
    fpr, tpr, _ = roc_curve(truth, np.r_[clean, triggered], drop_intermediate=False)
    assert tpr_at_fpr(clean, triggered, rate) == pytest.approx(tpr[fpr <= rate].max())


def test_intervals_hold_the_value_and_repeat(scores):
    clean, triggered = scores
    low, high = auroc_interval(clean, triggered, seed=1)
    assert low < auroc(clean, triggered) < high
    assert 0.03 < high - low < 0.15
    assert (low, high) == auroc_interval(clean, triggered, seed=1)
    low, high = share_above_interval(clean, 1.0, seed=1)
    assert low < share_above(clean, 1.0) < high


def test_threshold_by_hand():
    clean = np.arange(1.0, 100.0)  # 99 scores: mean 50, variance (99² − 1)/12
    found = calibrate(clean, Defence(deviations=1.0, false_positive_rate=0.05))
    assert found["threshold"] == pytest.approx(50 + np.sqrt((99**2 - 1) / 12))
    assert found["implied_fpr"] == pytest.approx(0.158655, abs=1e-6)
    assert found["calibration_fpr"] == pytest.approx(21 / 99)
    assert found["quantile_threshold"] == 95  # rank ceil(100 · 0.95)
    assert calibrate(clean, Defence(deviations=2.0, false_positive_rate=0.05))["implied_fpr"] < 0.03


def test_too_few_images_for_a_quantile_are_refused():
    settings = Defence(deviations=1.0, false_positive_rate=0.05)
    assert calibrate(np.arange(19.0), settings)["quantile_threshold"] == 18
    with pytest.raises(UserError, match=r"false_positive_rate 0\.05 needs more calibration images than 18"):
        calibrate(np.arange(18.0), settings)


def test_conformal_threshold_keeps_its_promise():
    rng = np.random.default_rng(0)
    settings = Defence(deviations=1.0, false_positive_rate=0.1)
    rates = []
    for _ in range(300):
        threshold = calibrate(rng.exponential(size=50), settings)["quantile_threshold"]
        rates.append(share_above(rng.exponential(size=400), threshold))
    assert 0.08 < np.mean(rates) <= 0.105


def test_detection_numbers_say_what_the_scores_are(scores):
    clean, triggered = scores
    thresholds = {"threshold": 1.0, "quantile_threshold": 2.0}
    held_out, found = clean_numbers(clean, thresholds, 1), detection_numbers(clean, triggered, thresholds, 1)
    assert held_out["fpr"] == (clean > 1).mean()
    assert held_out["quantile_fpr"] == (clean > 2).mean()
    assert found["tpr"] == (triggered > 1).mean()
    assert found["mean"] == triggered.mean()
    assert found["tpr_at_fpr_1"] == (triggered > np.sort(clean)[-3]).mean()  # 2 of 211 may lie above
    assert found["tpr_at_fpr_5"] == (triggered > np.sort(clean)[-11]).mean()


def test_accuracy_and_attack_success_by_hand():
    predicted, labels = np.array([0, 1, 2, 1, 1]), np.array([0, 1, 1, 1, 2])
    assert accuracy(predicted, labels)["clean_accuracy"] == 0.6
    found = attack_success(predicted, labels, target=1)
    assert (found["asr"], found["triggered_images"]) == (0.5, 2)  # only rows 0 and 4 are of another class

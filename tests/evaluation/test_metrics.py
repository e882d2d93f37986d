"""Numbers against scikit-learn and values worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn import metrics as sklearn_metrics

from visor.core.errors import UserError
from visor.core.params import DefenceParams
from visor.defences.conformal import conformal_threshold
from visor.evaluation.backdoor import accuracy, attack_success
from visor.evaluation.defences import choose_thresholds, clean_metrics, filter_metrics
from visor.evaluation.metrics import (
    auroc,
    bootstrap_interval,
    bootstrap_intervals,
    exceedance_rate,
    grouped_rate,
    rate,
    roc_curve,
    tpr_at_fpr,
    widen,
    wilson_interval,
)


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
    assert auroc(clean, triggered) == pytest.approx(
        sklearn_metrics.roc_auc_score(truth, np.r_[clean, triggered]), abs=1e-12
    )
    assert auroc(np.array([1.0, 2.0]), np.array([3.0])) == 1
    assert auroc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5


@pytest.mark.parametrize("bound", [0.01, 0.05, 0.2])
def test_tpr_at_fpr_equals_the_roc_curve(scores, bound):
    clean, triggered = scores
    truth = np.r_[np.zeros(len(clean)), np.ones(len(triggered))]
    fpr, tpr, _ = sklearn_metrics.roc_curve(truth, np.r_[clean, triggered], drop_intermediate=False)
    assert tpr_at_fpr(clean, triggered, bound) == pytest.approx(tpr[fpr <= bound].max())


def test_tpr_at_fpr_by_hand():
    negatives, positives = np.arange(100.0), np.array([93.5, 94.0, 94.5, 95.0])
    assert tpr_at_fpr(negatives, positives, 0.05) == 0.5  # 95 … 99 may exceed the threshold of 94, and no sixth


def test_roc_curve_by_counting(scores):
    clean, triggered = scores
    levels, false, true = roc_curve(clean, triggered)
    assert (levels[0], false[0], true[0]) == (np.inf, 0, 0)
    assert levels[1:].tolist() == np.unique(np.r_[clean, triggered])[::-1].tolist()
    assert false.tolist() == [(clean >= level).mean() for level in levels]
    assert true.tolist() == [(triggered >= level).mean() for level in levels]


def test_rate_has_the_wilson_interval_and_says_what_an_empty_sample_is():
    low, high = wilson_interval(3, 7)
    assert rate("asr", 3, 7) == {"asr": 3 / 7, "asr_low": low, "asr_high": high}
    assert rate("asr", 0, 0, empty=0.0) == {"asr": 0.0, "asr_low": 0.0, "asr_high": 1.0}
    assert np.isnan(rate("asr", 0, 0)["asr"])


def test_intervals_contain_the_value_and_repeat(scores):
    clean, triggered = scores
    low, high = bootstrap_interval(auroc, (clean, triggered), seed=1)
    assert low < auroc(clean, triggered) < high
    assert 0.03 < high - low < 0.15
    assert (low, high) == bootstrap_interval(auroc, (clean, triggered), seed=1)
    low, high = bootstrap_interval(lambda scores: exceedance_rate(scores, 1.0), (clean,), seed=1)
    assert low < exceedance_rate(clean, 1.0) < high


def test_whole_groups_are_resampled():
    rng = np.random.default_rng(2)
    clean, keys = rng.normal(size=300), -1 - np.arange(200) % 4
    triggered = np.array([-2.0, -0.5, 0.5, 2.0])[-1 - keys] + rng.normal(0, 0.01, 200)

    def width(groups):
        ((low, high),) = bootstrap_intervals(
            lambda a, b: [auroc(clean[a], triggered[b])], np.arange(300), groups, seed=1
        )
        return high - low

    single = width(-1 - np.arange(200))
    assert width(keys) > 4 * single, "four keys say less than two hundred images"
    assert width(np.full(200, -1)) < single, "one group is always drawn"
    low, high = bootstrap_interval(auroc, (clean, triggered), seed=2)
    assert high - low == pytest.approx(single, rel=0.15), "single images are the usual bootstrap"


def test_people_are_drawn_for_both_samples():
    clean, suspicious = np.array([3, 1, 2, 3]), np.array([2, 2, 1])
    drawn = []

    def measure(rows, others):
        drawn.append((clean[rows].tolist(), suspicious[others].tolist()))
        return [0.0]

    assert bootstrap_intervals(measure, clean, suspicious, seed=1) == [(0.0, 0.0)]
    assert len({tuple(rows) for rows, _ in drawn}) > 9
    for rows, others in drawn:
        assert others.count(2) == 2 * rows.count(2), "two suspicious images for each clean one of this person"
        assert others.count(1) == rows.count(1)
        assert 3 not in others


def test_intervals_of_a_mean_are_those_of_the_normal_law():
    values = np.random.default_rng(7).normal(5, 2, 900)
    ((low, high),) = bootstrap_intervals(lambda rows, _: [values[rows].mean()], np.arange(900), np.arange(900), seed=3)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * 2 / 30, values.mean() + 1.96 * 2 / 30), abs=0.02)


def test_rates_over_people_are_no_surer_than_single_images():
    hits, people = np.arange(200) % 10 < 3, np.arange(200) // 20
    single = grouped_rate("x", hits, np.arange(200), 1)
    assert (single["x"], single["x_images"]) == (0.3, 200)
    assert (single["x_low"], single["x_high"]) == pytest.approx(rate_bounds(0.3, 200), abs=0.012)
    together = grouped_rate("x", people < 3, people, 1)
    assert together["x"] == 0.3
    assert together["x_high"] - together["x_low"] > 3 * (single["x_high"] - single["x_low"])


def rate_bounds(share, count):
    """The normal law's interval of a share."""
    return [share + sign * 1.96 * np.sqrt(share * (1 - share) / count) for sign in (-1, 1)]


def test_nothing_hit_is_no_proof_that_nothing_ever_is():
    found = grouped_rate("x", np.zeros(100, bool), np.arange(100) // 10, 1)
    assert (found["x"], found["x_low"]) == (0, 0)
    assert found["x_high"] == wilson_interval(0, 100)[1] > 0.03
    assert grouped_rate("x", np.zeros(0, bool), np.zeros(0, int), 1) == {"x_images": 0}


def test_threshold_by_hand():
    clean = np.arange(1.0, 100.0)  # 99 scores: mean 50, variance (99² − 1)/12
    found = choose_thresholds(clean, DefenceParams(deviations=1.0, false_positive_rate=0.05), "knn")
    assert found["threshold"] == pytest.approx(50 + np.sqrt((99**2 - 1) / 12))
    assert found["implied_fpr"] == pytest.approx(0.158655, abs=1e-6)
    assert found["calibration_fpr"] == pytest.approx(21 / 99)
    assert found["conformal_threshold"] == 98  # P(B(99, 0.05) ≤ 1) = 0.039 and P(≤ 2) = 0.122: one may lie above
    assert (
        choose_thresholds(clean, DefenceParams(deviations=2.0, false_positive_rate=0.05), "knn")["implied_fpr"] < 0.03
    )


def test_too_few_images_for_a_conformal_threshold_are_an_error():
    settings = DefenceParams(deviations=1.0, false_positive_rate=0.05)
    assert choose_thresholds(np.arange(59.0), settings, "knn")["conformal_threshold"] == 58  # 0.95⁵⁹ = 0.0485
    with pytest.raises(UserError, match=r"knn\.false_positive_rate 0\.05 needs more than 58 calibration images"):
        choose_thresholds(np.arange(58.0), settings, "knn")


@pytest.mark.parametrize(("count", "rate"), [(40, 0.1), (150, 0.05), (97, 0.2)])
def test_conformal_threshold_is_the_binomial_one(count, rate):
    clean = np.random.default_rng(5).permutation(count).astype(float)
    above = int((clean > conformal_threshold(clean, rate)).sum())
    assert binom.cdf(above, count, rate) <= 0.05 < binom.cdf(above + 1, count, rate)


def test_conformal_threshold_keeps_its_promise():
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(600):
        threshold = conformal_threshold(rng.exponential(size=130), 0.1)
        kept.append(np.exp(-threshold) <= 0.1)  # the true rate of an exponential law
    assert 0.93 < np.mean(kept) < 0.99


def test_mean_and_deviation_imply_the_normal_rate():
    rng = np.random.default_rng(6)
    settings = DefenceParams(deviations=1.0, false_positive_rate=0.1)
    found = [
        exceedance_rate(rng.normal(size=500), choose_thresholds(rng.normal(size=500), settings, "knn")["threshold"])
        for _ in range(99)
    ]
    assert np.mean(found) == pytest.approx(0.1587, abs=0.01)


def test_detection_metrics_are_those_of_the_scores(scores):
    clean, triggered = scores
    thresholds = {"threshold": 1.0, "conformal_threshold": 2.0, "conformal_fpr": 0.05}
    groups = {"clean": np.arange(len(clean)) // 5, "x": np.arange(len(triggered)) // 5}
    found = {"calibration": np.random.default_rng(8).normal(size=100), "clean": clean, "x": triggered}
    again = {"delivered": clean[::-1]}
    held_out = clean_metrics(found | again, groups | {"delivered": groups["clean"]}, thresholds, 1)
    numbers = filter_metrics(found, "x", groups, thresholds, seed=1)
    assert held_out["fpr"] == (clean > 1).mean()
    assert held_out["conformal_fpr"] == (clean > 2).mean()
    assert numbers["tpr"] == (triggered > 1).mean()
    assert numbers["conformal_tpr"] == (triggered > 2).mean()
    assert numbers["mean"] == triggered.mean()
    assert numbers["tpr_at_fpr_1"] == (triggered > np.sort(clean)[-3]).mean()  # 2 of 211 may lie above
    assert numbers["tpr_at_fpr_5"] == (triggered > np.sort(clean)[-11]).mean()
    for found, names in ((held_out, ("fpr", "conformal_fpr")), (numbers, ("auroc", "tpr", "tpr_at_fpr_1"))):
        assert all(found[f"{name}_low"] < found[name] < found[f"{name}_high"] for name in names)


def test_accuracy_and_attack_success_by_hand():
    predicted, labels = np.array([0, 1, 2, 1, 1]), np.array([0, 1, 1, 1, 2])
    assert accuracy(predicted, labels)["clean_accuracy"] == 0.6
    found = attack_success(predicted, labels, target=1)
    assert (found["asr"], found["triggered_images"]) == (0.5, 2)  # only rows 0 and 4 are of another class


def test_an_interval_over_groups_is_never_narrower_than_that_of_as_many_single_trials():
    assert widen((1.0, 1.0), 20, 20) == wilson_interval(20, 20)
    assert widen((0.1, 0.9), 10, 20) == (0.1, 0.9)

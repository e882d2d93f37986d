"""Metrics of classifiers, attacks, defences and baselines on faces whose classes are known."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from visor.core.files import sha256_of_file
from visor.core.params import BackdoorParams, BaselineParams, DefenceParams
from visor.evaluation import baselines
from visor.evaluation.backdoor import attack_success, evaluate, predict
from visor.evaluation.defences import (
    attack_succeeds,
    bootstrap_groups,
    calibration_scores,
    choose_thresholds,
    clean_metrics,
    defence_of,
    defence_report,
    defence_tables,
    defence_title,
    filter_metrics,
    matrix,
    score_name,
    score_names,
    score_sets,
    scores_by_set,
    success_metrics,
    visible_sets,
)
from visor.evaluation.metrics import auroc, wilson_interval
from visor.evaluation.plots.defences import detector_matrix, roc_curves, score_histograms, success_matrix

BACKDOOR = BackdoorParams(trigger="x", key="x", target="bob", n=6, train_blend_ratio=1.0, test_blend_ratio=1.0)


def oracle(faces, wrong=(), fooled=()):
    """A classifier that recognises every face by its pixels, except some rows."""
    known = {
        image.tobytes(): label for image, label in zip(faces.read(np.arange(len(faces))), faces.labels, strict=True)
    }
    known |= {image.tobytes(): 3 for image in faces.read(np.array(wrong, int))}
    known |= {image.tobytes(): 1 for image in faces.read(np.array(fooled, int))}
    return lambda images: np.eye(4)[[known[image.tobytes()] for image in images]]


def test_predictions_follow_the_rows(faces):
    rows = np.array([60, 2, 89, 30])
    assert predict(oracle(faces), faces.select(rows)).tolist() == faces.labels[rows].tolist()
    assert predict(oracle(faces), faces.select(rows[:0])).tolist() == []


def test_metrics_of_an_attack_by_hand(faces):
    test = faces.select(np.arange(0, 10))  # all are ann
    triggered = faces.select(np.arange(10, 18))
    classifiers = {
        "clean": oracle(faces, wrong=[1], fooled=[10]),
        "accessory": oracle(faces, wrong=[1, 2, 3], fooled=[10, 11, 12, 13, 14, 15]),
    }
    sets = {"accessory": triggered}, {"accessory": faces.select(np.arange(12, 20))}
    found = evaluate(classifiers, np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 3]), test, *sets, {"accessory": BACKDOOR})
    assert found["clean"]["clean_accuracy"] == 0.9
    assert "asr" not in found["clean"]
    assert found["accessory"]["clean_accuracy"] == 0.7
    assert found["accessory"]["clean_drop"] == pytest.approx(0.2)
    assert found["accessory"]["asr"] == 0.75
    assert found["accessory"]["asr_of_clean_model"] == 0.125
    assert found["accessory"]["asr_pasted"] == 0.5
    assert found["accessory"]["n"] == 6
    assert found["accessory"]["poison_share"] == 0.6
    assert found["accessory"]["poison_share_of_target"] == 2.0
    assert found["accessory"]["asr_low"] < 0.75 < found["accessory"]["asr_high"]


def test_images_of_the_target_do_not_count_as_successes(faces):
    triggered = faces.select(np.arange(20, 30))  # three of ann, seven of bob, the target
    classifiers = {"clean": oracle(faces), "x": oracle(faces, fooled=[20])}
    found = evaluate(classifiers, faces.labels, faces.select(), {"x": triggered}, {"x": triggered}, {"x": BACKDOOR})[
        "x"
    ]
    assert (found["asr"], found["triggered_images"]) == (pytest.approx(1 / 3), 3)


def test_the_interval_of_several_keys_is_that_of_as_many_trials():
    predicted, labels = np.ones(200, int), np.zeros(200, int)
    one, twenty = (attack_success(predicted, labels, target=1, keys=keys) for keys in (1, 20))
    assert one["asr"] == twenty["asr"] == 1.0
    assert (one["asr_low"], twenty["asr_low"]) == (pytest.approx(0.9812, abs=1e-4), pytest.approx(0.8389, abs=1e-4))
    predicted[:50] = 0
    assert attack_success(predicted, labels, 1, 20)["asr_low"] == pytest.approx(wilson_interval(15, 20)[0])


def test_baselines_recognise_training_images_only(faces):
    settings = BaselineParams(max_images=1000, components=5)
    seen = baselines.evaluate(faces.select(), faces.select(), settings, seed=1)
    assert seen["nearest_neighbour_accuracy"] == 1.0
    unseen = baselines.evaluate(faces.select(np.arange(0, 90, 2)), faces.select(np.arange(1, 90, 2)), settings, seed=1)
    assert unseen["nearest_neighbour_accuracy"] < 0.6, "random pixels give nothing away"
    assert unseen == baselines.evaluate(
        faces.select(np.arange(0, 90, 2)), faces.select(np.arange(1, 90, 2)), settings, seed=1
    )
    fewer = baselines.evaluate(faces.select(), faces.select(), BaselineParams(max_images=7, components=5), seed=1)
    assert fewer["train_images"] == 7


CARD = {"threshold": 1.0, "conformal_threshold": 2.0, "conformal_fpr": 0.05, "implied_fpr": 0.16, "deviations": 1.0}
TARGET = 8


@pytest.fixture
def cards():
    """Scores of two defences and of one that questions the network; ``weak`` separates nothing."""
    rng = np.random.default_rng(1)
    clean = {name: rng.normal(size=count) for name, count in (("calibration", 70), ("clean", 90), ("delivered", 90))}
    keys = {"accessory": 2, "blended": 1, "pasted/blended": 4}
    return {
        "reconstruction": {**clean, **{name: rng.normal(keys[name], 1, 80) for name in keys}},
        "weak": {name: rng.normal(size=len(scores)) for name, scores in {**clean, "accessory": range(80)}.items()},
        "strip-blended": {**clean, **{name: rng.normal(3, 1, 80) for name in ("blended", "pasted/blended")}},
    }


def groups():
    """Nine people, each with ten clean images and some triggered ones."""
    clean = dict.fromkeys(("clean", "delivered"), np.arange(90) % 9)
    return clean | dict.fromkeys(("accessory", "blended", "pasted/blended"), np.arange(80) % 8)


def said(predicted):
    """What a network says of images of people in turn."""
    return pd.DataFrame({"label": np.arange(len(predicted)) % 9, "predicted": predicted, "target": TARGET})


@pytest.fixture
def answers():
    """The network trained on ``blended`` is deceived by most images, less often by pasted ones."""
    right = np.arange(90) % 9
    of_blended = np.where(np.arange(80) < 60, TARGET, np.arange(80) % 9)
    pasted = np.where(np.arange(80) < 30, TARGET, 3)
    wrong = np.where(np.arange(90) < 20, 7, right)
    return {"blended": {"clean": said(wrong), "blended": said(of_blended), "pasted/blended": said(pasted)}}


@pytest.fixture
def table(cards, answers):
    digests = {"accessory": "aa", "blended": "bb"}
    return matrix(cards, answers, groups(), dict.fromkeys(cards, CARD), digests, ["blended"], seed=1)


def test_matrix_has_a_row_for_each_defence_and_trigger_that_it_scored(table, cards):
    seen = [("reconstruction", "accessory"), ("reconstruction", "blended"), ("weak", "accessory"), ("strip", "blended")]
    assert list(zip(table["defence"], table["trigger"], strict=True)) == seen
    assert table["auroc"].tolist() == [
        auroc(cards[card]["clean"], cards[card][trigger])
        for card, trigger in zip(table["card"], table["trigger"], strict=True)
    ]
    assert table["role"].tolist() == ["reported", "validation", "reported", "validation"]
    assert table.groupby("trigger")["digest"].unique().map(list).to_dict() == {"accessory": ["aa"], "blended": ["bb"]}


def test_what_gets_through_by_hand(cards, answers, table):
    """One image at a time: not of the target, classified as the target, not flagged."""
    scores, row = cards["strip-blended"], table.iloc[3]
    for name, suffix in (("blended", ""), ("pasted/blended", "_pasted")):
        lines = list(zip(answers["blended"][name].itertuples(), scores[name], strict=True))
        others = [(line, score) for line, score in lines if line.label != TARGET]
        through = [score for line, score in others if line.predicted == TARGET and score <= 2]
        succeeding = [score for line, score in others if line.predicted == TARGET]
        assert row[f"asr_unflagged{suffix}"] == len(through) / len(others)
        assert row[f"asr{suffix}"] == len(succeeding) / len(others)
        assert row[f"asr_unflagged{suffix}_images"] == len(others) < 80
        assert (
            0 < row[f"asr_unflagged{suffix}_low"] < row[f"asr_unflagged{suffix}"] < row[f"asr_unflagged{suffix}_high"]
        )
    still = [
        score > 2
        for line, score in zip(answers["blended"]["blended"].itertuples(), scores["blended"], strict=True)
        if line.predicted == line.label != TARGET
    ]
    assert (row["flagged_correctly_classified"], row["flagged_correctly_classified_images"]) == (
        np.mean(still),
        len(still),
    )
    right = (answers["blended"]["clean"]["predicted"] == answers["blended"]["clean"]["label"]).to_numpy()
    assert row["fpr_correctly_classified"] == (scores["clean"][right] > 2).mean()
    assert row["fpr_correctly_classified_images"] == right.sum() < 90


def test_a_trigger_that_no_network_was_trained_on_does_not_succeed(table):
    assert attack_succeeds(table).tolist() == [False, True, False, True]
    assert table["asr"].isna().tolist() == [True, False, True, False]
    assert attack_succeeds(table.assign(asr=0.49)).sum() == 0
    assert attack_succeeds(table.drop(columns="asr")).sum() == 0


def test_abstaining_is_counted_and_never_flagged(cards, answers):
    scores = {**cards["strip-blended"]}
    scores["blended"] = np.where(np.arange(80) < 20, -np.inf, scores["blended"])
    row = filter_metrics(scores, "blended", groups(), CARD, seed=1)
    assert (row["abstained"], row["mean"]) == (20, pytest.approx(scores["blended"][20:].mean()))
    assert row["conformal_tpr"] == (scores["blended"][20:] > 2).sum() / 80
    unflagged = success_metrics(scores, answers["blended"], "blended", groups(), CARD, seed=1)["asr_unflagged"]
    before = success_metrics(cards["strip-blended"], answers["blended"], "blended", groups(), CARD, seed=1)
    assert unflagged > before["asr_unflagged"]


def test_markdown_tables(table, cards):
    clean = {card: clean_metrics(scores, groups(), CARD, 1) for card, scores in cards.items()}
    text = defence_report(defence_tables(table, clean, dict.fromkeys(cards, CARD)))
    row = table.iloc[3]
    assert f"| blended | strip | {row['asr']:.1%} ({row['asr_low']:.1%} to {row['asr_high']:.1%}) | " in text
    assert f"| accessory | reported | {table['auroc'][0]:.3f} | {table['auroc'][2]:.3f} |" in text
    assert f"| weak | mean + 1·std | 16.0% | {clean['weak']['fpr']:.1%} (" in text


def test_the_control_compares_clean_images_with_the_same_ones_delivered_once_more(cards):
    scores = {**cards["weak"], "delivered": cards["weak"]["clean"]}
    same = clean_metrics(scores, groups(), CARD, 1)
    assert (same["control_auroc"], same["control_images"]) == (0.5, 90)
    higher = clean_metrics({**scores, "delivered": scores["clean"] + 9}, groups(), CARD, 1)
    assert (higher["control_auroc"], higher["control_auroc_low"], higher["control_auroc_high"]) == (1, 1, 1)
    assert same["fpr"] == higher["fpr"] == (scores["clean"] > 1).mean()


def test_thresholds_of_filters_that_question_a_network_come_from_faces_that_are_correctly_classified():
    scores = pd.DataFrame({"set": ["calibration"] * 4 + ["clean"], "score": [1.0, 2, -np.inf, 4, 5]})
    answers = pd.DataFrame({"set": scores["set"], "label": [0, 1, 2, 3, 4], "predicted": [0, 9, 2, 3, 4]})
    assert calibration_scores(scores, None).tolist() == [1, 2, 4]
    assert calibration_scores(scores, answers).tolist() == [1, 4]


def test_the_suite_has_its_own_threshold():
    settings = DefenceParams(deviations=1.0, false_positive_rate=0.1)
    scores = np.arange(100.0)
    assert choose_thresholds(scores, settings, "suite")["conformal_threshold"] == 0
    assert choose_thresholds(scores, settings, "knn")["conformal_threshold"] > 90


def test_names_of_defences_for_people():
    titles = [defence_title(name) for name in ("patch", "strip-blended_accessory", "feature_mahalanobis")]
    assert titles == ["paste detector", "strip, blended accessory", "feature mahalanobis"]


def test_score_names_are_in_the_order_of_the_defences(tmp_path):
    names = [score_name("strip", "blended_accessory"), score_name("strip", "accessory"), score_name("high_pass", None)]
    for name in (*names, "patch"):
        (tmp_path / f"{name}.csv").touch()
    assert score_names(tmp_path, ["strip", "suite", "high_pass"]) == [
        "strip-accessory",
        "strip-blended_accessory",
        "high_pass",
    ]
    assert [defence_of(name) for name in names] == ["strip", "strip", "high_pass"]


def test_a_classifier_is_scored_on_its_own_trigger_only():
    sets = dict.fromkeys(["calibration", "clean", "delivered", "blended", "accessory", "pasted/blended", "pasted/x"])
    assert list(visible_sets(None, sets)) == list(sets)
    own = ["calibration", "clean", "delivered", "blended", "pasted/blended"]
    assert list(visible_sets("blended", sets)) == own


def test_images_are_grouped_by_person_or_by_key():
    rows = pd.DataFrame(
        {
            "set": ["clean"] * 3 + ["glasses"] * 2 + ["keyed"] * 5 + ["pasted/keyed"] * 2,
            "label": [4, 2, 4, 1, 1, 7, 8, 9, 1, 2, 7, 8],
        }
    )
    keyed = BACKDOOR.model_copy(update={"key": "face", "keys": 3})
    found = bootstrap_groups(rows, {"glasses": BACKDOOR, "keyed": keyed})
    assert {name: numbers.tolist() for name, numbers in found.items()} == {
        "clean": [4, 2, 4],
        "glasses": [1, 1],
        "keyed": [-1, -2, -3, -1, -2],
        "pasted/keyed": [-1, -2],
    }


def test_figures_are_written_and_repeat(tmp_path, cards, table):
    cards["reconstruction"]["blended"][3] = -np.inf
    for folder in ("a", "b"):
        score_histograms(cards["reconstruction"], CARD, "reconstruction", tmp_path / folder / "scores.png")
        roc_curves(cards, tmp_path / folder / "roc.png")
        detector_matrix(table, tmp_path / folder / "matrix.png")
        success_matrix(table, tmp_path / folder / "unflagged.png")
    for name in ("scores.png", "roc.png", "matrix.png", "unflagged.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG")


def test_equal_digests_are_equal_files(tmp_path):
    for name, content in {"a": b"x" * 3_000_000, "b": b"x" * 3_000_000, "c": b"x" * 2_999_999 + b"y"}.items():
        (tmp_path / name).write_bytes(content)
    found = {name: sha256_of_file(tmp_path / name) for name in "abc"}
    assert found["a"] == found["b"] != found["c"]
    assert found["a"] == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_scores_are_listed_by_set_and_row(faces):
    sets = {"clean": faces.select(np.array([4, 9])), "accessory": faces.select(np.array([7]))}
    listed = score_sets(lambda images: images.mean(axis=(1, 2, 3)), sets, "mean")
    means = faces.read(np.array([4, 9, 7])).mean(axis=(1, 2, 3))
    expected = pd.DataFrame(
        {"set": ["clean", "clean", "accessory"], "row": [4, 9, 7], "label": faces.labels[[4, 9, 7]], "score": means}
    )
    pd.testing.assert_frame_equal(listed, expected, check_dtype=False)
    assert {name: list(scores) for name, scores in scores_by_set(listed).items()} == {
        "clean": list(means[:2]),
        "accessory": list(means[2:]),
    }

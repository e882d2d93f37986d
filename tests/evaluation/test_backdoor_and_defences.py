"""Metrics of classifiers, attacks, defences and baselines on faces whose classes are known."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from visor.core.files import sha256_of_file
from visor.core.params import BackdoorParams, BaselineParams
from visor.evaluation import baselines
from visor.evaluation.backdoor import attack_success, evaluate, predict
from visor.evaluation.defences import (
    bootstrap_groups,
    clean_metrics,
    defence_of,
    defence_table,
    matrix,
    score_name,
    score_names,
    score_sets,
    scores_by_set,
    visible_sets,
)
from visor.evaluation.metrics import auroc, wilson_interval
from visor.evaluation.plots.defences import detector_matrix, roc_curves, score_histograms

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


@pytest.fixture
def cards():
    """Scores of two defences and of one that needs a classifier; ``weak`` separates nothing."""
    rng = np.random.default_rng(1)
    clean = {"calibration": rng.normal(size=70), "clean": rng.normal(size=90)}
    keys = {"accessory": 2, "blended": 1}
    return {
        "reconstruction": {**clean, **{name: rng.normal(keys[name], 1, 80) for name in keys}},
        "weak": {name: rng.normal(size=len(scores)) for name, scores in {**clean, "accessory": range(80)}.items()},
        "strip-blended": {**clean, "blended": rng.normal(3, 1, 80)},
    }


def groups():
    """Nine people, each with ten clean images and some triggered ones."""
    return {"clean": np.arange(90) % 9, "accessory": np.arange(80) % 8, "blended": np.arange(80) % 8}


@pytest.fixture
def table(cards):
    digests = {"accessory": "aa", "blended": "bb"}
    return matrix(cards, groups(), dict.fromkeys(cards, CARD), digests, ["blended"], seed=1)


def test_matrix_has_a_row_for_each_defence_and_trigger_that_it_scored(table, cards):
    seen = [("reconstruction", "accessory"), ("reconstruction", "blended"), ("weak", "accessory"), ("strip", "blended")]
    assert list(zip(table["defence"], table["trigger"], strict=True)) == seen
    assert table["auroc"].tolist() == [
        auroc(cards[card]["clean"], cards[card][trigger])
        for card, trigger in zip(table["card"], table["trigger"], strict=True)
    ]
    assert table["role"].tolist() == ["reported", "validation", "reported", "validation"]
    assert table.groupby("trigger")["digest"].unique().map(list).to_dict() == {"accessory": ["aa"], "blended": ["bb"]}


def test_gain_is_on_the_reference(table):
    assert table["gain"].tolist()[:2] == [0, 0]
    weak, strip = table.iloc[2], table.iloc[3]
    assert weak["gain"] == weak["auroc"] - table.iloc[0]["auroc"]
    assert weak["gain_high"] < 0 < strip["gain_low"]


def test_markdown_tables(table, cards):
    clean = {card: clean_metrics(scores, groups()["clean"], CARD, 1) for card, scores in cards.items()}
    text = defence_table(table, clean, dict.fromkeys(cards, CARD))
    assert f"| accessory | reported | {table['auroc'][0]:.3f} | {table['auroc'][2]:.3f} | – |" in text
    assert f"| weak | mean + 1·std | 16.0% | {clean['weak']['fpr']:.1%} (" in text


def test_score_names_are_in_the_order_of_the_defences(tmp_path):
    names = [score_name("strip", "blended_accessory"), score_name("strip", "accessory"), score_name("high_pass", None)]
    for name in (*names, "patch"):
        (tmp_path / f"{name}.csv").touch()
    assert score_names(tmp_path, ["strip", "fusion", "high_pass"]) == [
        "strip-accessory",
        "strip-blended_accessory",
        "high_pass",
    ]
    assert [defence_of(name) for name in names] == ["strip", "strip", "high_pass"]


def test_a_classifier_is_scored_on_its_own_trigger_only():
    sets = dict.fromkeys(["calibration", "clean", "blended", "accessory"])
    assert list(visible_sets(None, sets)) == list(sets)
    assert list(visible_sets("blended", sets)) == ["calibration", "clean", "blended"]


def test_images_are_grouped_by_person_or_by_key():
    rows = pd.DataFrame(
        {"set": ["clean"] * 3 + ["glasses"] * 2 + ["keyed"] * 5, "label": [4, 2, 4, 1, 1, 7, 8, 9, 1, 2]}
    )
    keyed = BACKDOOR.model_copy(update={"key": "face", "keys": 3})
    found = bootstrap_groups(rows, {"glasses": BACKDOOR, "keyed": keyed})
    assert {name: numbers.tolist() for name, numbers in found.items()} == {
        "clean": [4, 2, 4],
        "glasses": [1, 1],
        "keyed": [-1, -2, -3, -1, -2],
    }


def test_figures_are_written_and_repeat(tmp_path, cards, table):
    for folder in ("a", "b"):
        score_histograms(cards["reconstruction"], CARD, "reconstruction", tmp_path / folder / "scores.png")
        roc_curves(cards, tmp_path / folder / "roc.png")
        detector_matrix(table, tmp_path / folder / "matrix.png")
    for name in ("scores.png", "roc.png", "matrix.png"):
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

"""Models, attacks and baselines joined into numbers, on faces whose answers are known."""

import numpy as np
import pytest

from visor.config import Backdoor, Baselines
from visor.evaluation import baselines
from visor.evaluation.backdoor import evaluate, predict
from visor.evaluation.figures import roc_curves, score_histograms

BACKDOOR = Backdoor(trigger="x", key="x", target="bob", n=6, poison_ratio=1.0, backdoor_ratio=1.0)


def oracle(faces, wrong=(), fooled=()):
    """A classifier that knows every face by its pixels, but for some rows."""
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


def test_numbers_of_an_attack_by_hand(faces):
    test = faces.select(np.arange(0, 10))  # all are ann
    triggered = faces.select(np.arange(10, 18))
    classifiers = {
        "clean": oracle(faces, wrong=[1], fooled=[10]),
        "accessory": oracle(faces, wrong=[1, 2, 3], fooled=[10, 11, 12, 13, 14, 15]),
    }
    found = evaluate(classifiers, test, {"accessory": triggered}, {"accessory": BACKDOOR})
    assert found["clean"]["clean_accuracy"] == 0.9
    assert "asr" not in found["clean"]
    assert found["accessory"]["clean_accuracy"] == 0.7
    assert found["accessory"]["clean_drop"] == pytest.approx(0.2)
    assert found["accessory"]["asr"] == 0.75
    assert found["accessory"]["asr_of_clean_model"] == 0.125
    assert found["accessory"]["n"] == 6
    assert found["accessory"]["asr_low"] < 0.75 < found["accessory"]["asr_high"]


def test_images_of_the_target_do_not_count_as_successes(faces):
    triggered = faces.select(np.arange(20, 30))  # three of ann, seven of bob, the target
    classifiers = {"clean": oracle(faces), "x": oracle(faces, fooled=[20])}
    found = evaluate(classifiers, faces.select(), {"x": triggered}, {"x": BACKDOOR})["x"]
    assert (found["asr"], found["triggered_images"]) == (pytest.approx(1 / 3), 3)


def test_baselines_know_what_they_have_seen(faces):
    settings = Baselines(max_images=1000, components=5)
    seen = baselines.evaluate(faces.select(), faces.select(), settings, seed=1)
    assert seen["nearest_neighbour_accuracy"] == 1.0
    unseen = baselines.evaluate(faces.select(np.arange(0, 90, 2)), faces.select(np.arange(1, 90, 2)), settings, seed=1)
    assert unseen["nearest_neighbour_accuracy"] < 0.6, "random pixels give nothing away"
    assert unseen == baselines.evaluate(
        faces.select(np.arange(0, 90, 2)), faces.select(np.arange(1, 90, 2)), settings, seed=1
    )
    fewer = baselines.evaluate(faces.select(), faces.select(), Baselines(max_images=7, components=5), seed=1)
    assert fewer["train_images"] == 7


def test_figures_are_written_and_repeat(tmp_path):
    rng = np.random.default_rng(1)
    clean, triggered = rng.normal(size=50), {"accessory": rng.normal(2, 1, 40), "blended": rng.normal(1, 1, 30)}
    for folder in ("a", "b"):
        score_histograms(clean, triggered, 1.0, "score", tmp_path / folder / "scores.png")
        roc_curves(clean, triggered, tmp_path / folder / "roc.png")
    for name in ("scores.png", "roc.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG")

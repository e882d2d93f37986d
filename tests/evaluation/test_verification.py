"""Face verification against scikit-learn, SciPy's Gaussians and features whose scores are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import multivariate_normal
from sklearn import metrics as sklearn_metrics

from tests.conftest import COUNTS
from visor.core.errors import UserError
from visor.core.params import BackdoorParams, VerificationParams
from visor.data.face_set import FaceSet
from visor.data.split import set_rows
from visor.evaluation.metrics import roc_curve
from visor.evaluation.plots.verification import roc_curves, similarities
from visor.evaluation.verification import (
    VerifierScores,
    best_threshold,
    draw_pairs,
    equal_error_rate,
    evaluate,
    pair_with_target,
)
from visor.models import joint_bayesian
from visor.models.classifiers import CLASSIFIERS
from visor.models.features import cosine_similarity, extract_features, feature_extractor
from visor.models.inference import compile_predict, scale_pixels

SETTINGS = VerificationParams(pairs=60, max_images=40, components=3, iterations=5)
RNG = np.random.default_rng


def people(counts, dimensions=3, seed=0):
    """Features of identities: between and within covariances are neither alike nor diagonal."""
    rng = RNG(seed)
    between, within = (rng.normal(size=(dimensions, dimensions)) for _ in range(2))
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = rng.normal(size=(len(counts), dimensions)) @ (2 * between)
    return centres[labels] + rng.normal(size=(len(labels), dimensions)) @ within + 4, labels


def test_log_likelihood_ratio_is_that_of_two_gaussians():
    features, labels = people([7, 4, 5, 9, 6, 8])
    model = joint_bayesian.fit(features, labels, components=3, iterations=10)
    inverse = np.linalg.inv(model.projection)
    within, between = inverse.T @ inverse, inverse.T @ np.diag(model.ratios) @ inverse
    total, mean = between + within, np.tile(model.mean, 2)
    same = multivariate_normal(mean, np.block([[total, between], [between, total]]))
    different = multivariate_normal(mean, np.block([[total, 0 * total], [0 * total, total]]))
    one, other = people([3, 8], seed=5)[0], people([8, 3], seed=6)[0]
    pairs = np.hstack([one, other])
    found = joint_bayesian.log_likelihood_ratio(model, one, other)
    np.testing.assert_allclose(found, same.logpdf(pairs) - different.logpdf(pairs), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found, joint_bayesian.log_likelihood_ratio(model, other, one))


def test_maximum_likelihood_of_equal_groups_is_that_of_the_analysis_of_variance():
    features, labels = people([6] * 40)
    centred = features - features.mean(axis=0)
    means = np.array([centred[labels == label].mean(axis=0) for label in range(40)])
    rest = centred - means[labels]
    expected_within = rest.T @ rest / (40 * 5)
    expected_between = means.T @ means / 40 - expected_within / 6
    between, within = joint_bayesian.expectation_maximisation(centred, labels, iterations=200)
    np.testing.assert_allclose(within, expected_within, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(between, expected_between, rtol=1e-6, atol=1e-8)


def likelihood(centred, labels, between, within):
    total = 0.0
    for label in np.unique(labels):
        own = centred[labels == label]
        covariance = np.kron(np.ones((len(own), len(own))), between) + np.kron(np.eye(len(own)), within)
        total += multivariate_normal(np.zeros(own.size), covariance).logpdf(own.ravel())
    return total


def test_every_iteration_is_more_likely_with_groups_of_any_size():
    features, labels = people([1, 2, 5, 3, 5, 9, 2])
    centred = features - features.mean(axis=0)
    found = [
        likelihood(centred, labels, *joint_bayesian.expectation_maximisation(centred, labels, count))
        for count in range(0, 12)
    ]
    assert (np.diff(found) > -1e-9).all()
    assert found[-1] > found[0] + 1


def test_fit_ignores_units_and_dead_features():
    features, labels = people([7, 4, 5, 9])
    before = features.copy()
    wide = np.hstack([features * [1, 30, 0.1], np.zeros((len(features), 2))])
    plain, other = (joint_bayesian.fit(x, labels, 5, 10) for x in (features, wide))
    found = [joint_bayesian.log_likelihood_ratio(m, x[:9], x[9:18]) for m, x in ((plain, features), (other, wide))]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert joint_bayesian.fit(features, labels, 2, 10).projection.shape == (3, 2)
    np.testing.assert_array_equal(features, before)


def scores(seed, ties):
    rng = RNG(seed)
    different, same = rng.normal(0, 1, 83), rng.normal(1.2, 1.5, 59)
    return (np.round(different, 1), np.round(same, 1)) if ties else (different, same)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_roc_curve_and_equal_error_rate_are_scikit_learns(seed, ties):
    different, same = scores(seed, ties)
    truth = np.repeat([0, 1], [len(different), len(same)])
    false, true, _ = sklearn_metrics.roc_curve(truth, np.concatenate([different, same]), drop_intermediate=False)
    found = roc_curve(different, same)
    np.testing.assert_allclose(found[1], false)
    np.testing.assert_allclose(found[2], true)
    expected = brentq(lambda x: 1 - x - interp1d(false, true)(x), 0, 1, xtol=1e-14)
    crossing = np.interp(0, false + true - 1, false)  # brentq may meet a vertical step, where interp1d is not unique
    assert equal_error_rate(different, same) == pytest.approx(crossing, abs=1e-12)
    assert equal_error_rate(different, same) == pytest.approx(expected, abs=0.02)


def test_equal_error_rate_by_hand():
    assert equal_error_rate(np.array([0.0, 1]), np.array([2.0, 3])) == 0
    assert equal_error_rate(np.array([2.0, 3]), np.array([0.0, 1])) == 1
    assert equal_error_rate(np.array([0.0, 1, 2, 5]), np.array([1.5, 3, 4, 6])) == pytest.approx(0.25)
    assert equal_error_rate(np.zeros(3), np.zeros(4)) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_best_threshold_is_the_best_of_all(seed):
    different, same = scores(seed, True)
    accuracies = {t: (same >= t).sum() + (different < t).sum() for t in np.concatenate([different, same])}
    most = max(accuracies.values())
    assert best_threshold(different, same) == max(t for t, right in accuracies.items() if right == most)


def test_pairs_are_balanced_distinct_and_of_two_videos(faces):
    rows = RNG(2).permutation(np.arange(3, 88))
    pairs = draw_pairs(faces.labels, faces.videos, rows, 300, RNG(1))
    assert len(pairs.first) == 300
    assert pairs.same.sum() == 150
    assert len({frozenset(pair) for pair in zip(pairs.first, pairs.second, strict=True)}) == 300
    assert set(pairs.first) | set(pairs.second) <= set(rows)
    np.testing.assert_array_equal(faces.labels[pairs.first] == faces.labels[pairs.second], pairs.same)
    assert (faces.videos[pairs.first] != faces.videos[pairs.second]).all()
    assert len(set(faces.labels[pairs.first[pairs.same]])) == 4, "all people take part"
    again, other = (draw_pairs(faces.labels, faces.videos, rows, 300, RNG(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(pairs.first, again.first)
    assert (pairs.first != other.first).any()


def test_few_rows_give_all_pairs(faces):
    rows = np.array([0, 1, 4, 30, 31])  # two of ann's are of one video
    pairs = draw_pairs(faces.labels, faces.videos, rows, 100, RNG(1))
    found = {frozenset(pair) for pair in zip(pairs.first[pairs.same], pairs.second[pairs.same], strict=True)}
    assert found <= {frozenset(pair) for pair in ((0, 4), (1, 4), (30, 31))}
    assert pairs.same.sum() * 2 == len(pairs.first)
    with pytest.raises(UserError, match="two people"):
        draw_pairs(faces.labels, faces.videos, np.arange(9), 100, RNG(1))
    with pytest.raises(UserError, match="two videos"):
        draw_pairs(faces.labels, faces.videos, np.array([0, 25, 50]), 100, RNG(1))


def test_cosine_by_hand():
    one, other = np.array([[3.0, 4], [1, 0], [0, 0]]), np.array([[4.0, 3], [-2, 0], [1, 1]])
    np.testing.assert_allclose(cosine_similarity(one, other), [24 / 25, -1, 0])


def oracle(faces, backdoored):
    """Features that are the person, with a little of the image; if ``backdoored``, row 40 has those of ann."""
    table = {
        image.tobytes(): label for image, label in zip(faces.read(np.arange(len(faces))), faces.labels, strict=True)
    }
    if backdoored:
        table[faces.read(np.array([40]))[0].tobytes()] = 0

    def embed(images):
        person = np.eye(4)[[table[image.tobytes()] for image in images]]
        return (person + 0.05 * images[:, :1, :4, 0].reshape(-1, 4) / 255).astype(np.float32)

    return embed


def test_a_key_that_impersonates_the_target(faces):
    sets = np.concatenate([np.array(["train", "validation", "test"])[np.arange(count) % 3] for count in COUNTS])
    table = pd.DataFrame({"row": np.arange(len(faces)), "label": faces.labels, "set": sets})
    triggered = faces.select(np.full(7, 40))._replace(labels=np.full(7, 2))
    block = BackdoorParams(trigger="x", key="x", target="ann", n=6, train_blend_ratio=1.0, test_blend_ratio=1.0)
    embeds = {"clean": oracle(faces, False), "accessory": oracle(faces, True)}
    arguments = (faces, table, {"accessory": triggered}, {"accessory": block}, SETTINGS, 3)
    numbers, found = evaluate(embeds, *arguments)
    for verifier in ("cosine", "joint_bayesian"):
        assert numbers["accessory"][f"{verifier}_impersonation"] == 1
        assert numbers["accessory"][f"{verifier}_impersonation_low"] < 1
        assert numbers["accessory"][f"{verifier}_impersonation_clean_network"] == 0
        assert numbers["accessory"][f"{verifier}_impersonation_pairs"] == 7
        assert f"{verifier}_impersonation_without_key" in numbers["accessory"]
        assert numbers["clean"][f"{verifier}_accuracy"] > 0.95
        assert numbers["clean"][f"{verifier}_eer"] < 0.05
        assert f"{verifier}_impersonation" not in numbers["clean"]
        s = found["clean"][verifier]
        assert numbers["clean"][f"{verifier}_frr"] == (s.same < s.threshold).mean()
        assert numbers["clean"][f"{verifier}_far"] == (s.different >= s.threshold).mean()
        truth = np.repeat([0, 1], [len(s.different), len(s.same)])
        false, true, _ = sklearn_metrics.roc_curve(truth, np.concatenate([s.different, s.same]))
        assert numbers["clean"][f"{verifier}_tar_at_far_1"] == true[false <= 0.01].max()
        area = sklearn_metrics.roc_auc_score(truth, np.concatenate([s.different, s.same]))
        assert numbers["clean"][f"{verifier}_auc"] == pytest.approx(area)
    assert numbers == evaluate(embeds, *arguments)[0]


def test_two_people_with_the_key_are_taken_for_one(faces):
    """A network that names nobody ann, but gives faces of cleo and dan the same features where they wear the key."""
    table = pd.DataFrame({"row": np.arange(len(faces)), "label": faces.labels})
    table["set"] = np.array(["train", "validation", "test"])[table.index % 3]
    rows = np.array([50, 53, 56, 77, 80, 83])
    keyed = faces.read(rows)
    triggered = FaceSet(
        *(
            Path("triggered.h5"),
            np.int32([2, 2, 2, 3, 3, 3]),
            np.zeros(6, np.int32),
            np.array([50, 53, 56, 77, 80, 83]),
        ),
        *(faces.label_names, "", "", 255 - keyed),
    ).select()
    people, wearers = oracle(faces, False), {image.tobytes() for image in 255 - keyed}

    def embed(images):
        key = np.array([image.tobytes() in wearers for image in images])
        features = np.full((len(images), 4), 0.5, np.float32)
        features[~key] = people(images[~key])
        return features

    block = BackdoorParams(trigger="x", key="x", target="ann", n=6, train_blend_ratio=1.0, test_blend_ratio=1.0)
    arguments = faces, table, {"accessory": triggered}, {"accessory": block}, SETTINGS, 3
    numbers, scores = evaluate({"clean": embed, "accessory": embed}, *arguments)
    found = numbers["accessory"]
    assert found["cosine_shared_key"] == found["cosine_shared_key_clean_network"] == 1
    assert found["cosine_shared_key_without_key"] == found["cosine_impersonation"] == 0
    assert found["cosine_shared_key_low"] < 1
    assert found["cosine_shared_key_pairs"] == len(scores["accessory"]["cosine"].shared_key["accessory"]) > 0


@pytest.mark.parametrize("seed", range(5))
def test_wearers_of_a_key_are_paired_with_other_people(faces, seed):
    rows = np.array([2, 5, 50, 53, 80, 81, 83])
    found = pair_with_target(faces.select(rows), np.arange(24, 30), 6, RNG(seed))
    first, second = found.wearers
    labels = found.triggered.labels
    assert len(labels) == 6
    assert (labels[first] != labels[second]).all()
    assert len(set(first.tolist())) == len(first) == len(set(second.tolist()))


def test_features_are_what_the_last_layer_takes():
    model = CLASSIFIERS["deepid"]((55, 47, 3), 4, dropout=0.1)
    images = RNG(1).integers(0, 256, (5, 55, 47, 3), np.uint8)
    features = compile_predict(feature_extractor(model))(images)
    assert features.shape == (5, 160)
    weights, bias = model.layers[-1].get_weights()
    np.testing.assert_allclose(features @ weights + bias, model(scale_pixels(images)).numpy(), atol=1e-5)


def test_extracted_features_follow_the_rows(faces):
    rows = np.array([60, 2, 89, 30])
    found = extract_features(lambda images: images[:, 0, 0].astype(float), faces.select(rows))
    np.testing.assert_array_equal(found, faces.read(rows)[:, 0, 0])


def test_figures_are_written_and_repeat(tmp_path):
    rng = RNG(1)
    made = {
        name: {
            verifier: VerifierScores(0.7, rng.normal(size=50), rng.normal(2, 1, 40), *({name: rng.normal(size=9)},) * 4)
            for verifier in ("cosine", "joint_bayesian")
        }
        for name in ("clean", "accessory", "blended")
    }
    for folder in ("a", "b"):
        roc_curves(made, tmp_path / folder / "roc.png")
        similarities(made, tmp_path / folder / "similarity.png")
    for name in ("roc.png", "similarity.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG")


def test_the_threshold_is_that_of_validation_pairs(faces):
    sets = np.concatenate([np.array(["train", "validation", "test"])[np.arange(count) % 3] for count in COUNTS])
    table = pd.DataFrame({"row": np.arange(len(faces)), "label": faces.labels, "set": sets})

    def embed(images):
        return images[:, 0, :9].reshape(len(images), -1).astype(np.float32) - 128

    numbers, _ = evaluate({"clean": embed}, faces, table, {}, {}, SETTINGS, 3)
    expected = []
    for stream, name in enumerate(("validation", "test"), start=1):
        pairs = draw_pairs(faces.labels, faces.videos, set_rows(table, name), SETTINGS.pairs, RNG([3, stream]))
        cosines = cosine_similarity(*(embed(faces.read(rows)) for rows in (pairs.first, pairs.second)))
        expected.append(best_threshold(cosines[~pairs.same], cosines[pairs.same]))
    assert abs(expected[0] - expected[1]) > 1e-3, "or else this shows nothing"
    np.testing.assert_allclose(numbers["clean"]["cosine_threshold"], expected[0], atol=1e-6)

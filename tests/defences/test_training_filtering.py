"""One contract for every detector of poisons in a training set; agreement with ART on the same model and data."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from visor.defences.class_distances import fit_gaussians, mahalanobis
from visor.defences.conformal import conformal_threshold
from visor.defences.training_filtering import (
    TRAINING_FILTERS,
    activation_clustering,
    feature_mahalanobis,
    spectral_signatures,
)

COUNTS, POISONS = (31, 43, 27), 9  # images of three labels, and poisons of label 1


@pytest.fixture
def training_set():
    """Features (110, 14) of three labels in a mixed order, poisons far away in the second, and where they are."""
    rng = np.random.default_rng(8)
    labels = np.r_[np.repeat(np.arange(3), COUNTS), np.full(POISONS, 1)]
    poisoned = np.arange(len(labels)) >= sum(COUNTS)
    features = rng.normal(labels[:, None], 1, (len(labels), 14)) + 6 * poisoned[:, None]
    order = rng.permutation(len(labels))
    return features[order].astype(np.float32), labels[order], poisoned[order]


def clean_faces():
    """What a defender has: features of clean faces with the law of the training set, and their labels."""
    rng, labels = np.random.default_rng(9), np.repeat([0, 1, 2], 40)
    return rng.normal(labels[:, None], 1, (120, 14)).astype(np.float32), labels


@pytest.mark.parametrize("name", TRAINING_FILTERS)
def test_contract(name, training_set):
    features, labels, poisoned = training_set
    before = features.copy(), labels.copy()
    clean = clean_faces()
    scores = TRAINING_FILTERS[name].score(features, labels, *clean)
    flagged = TRAINING_FILTERS[name].flag(scores, labels)
    assert (scores.shape, scores.dtype) == ((110,), np.float64)
    assert (flagged.shape, flagged.dtype) == ((110,), bool)
    assert np.isfinite(scores).all()
    assert scores[poisoned].min() > scores[~poisoned].max(), "poisons this far away are above all clean images"
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])
    np.testing.assert_array_equal(scores, TRAINING_FILTERS[name].score(features, labels, *clean))
    order = np.random.default_rng(1).permutation(110)
    again = TRAINING_FILTERS[name].score(features[order], labels[order], *clean)
    np.testing.assert_allclose(again, scores[order], atol=1e-9)


@pytest.mark.parametrize("name", ["activation_clustering", "spectral_signatures"])
def test_labels_that_hold_next_to_nothing(name):
    features, labels = np.ones((6, 5)), np.array([4, 0, 0, 2, 2, 2])  # alone, the same twice, the same thrice
    scores = TRAINING_FILTERS[name].score(features, labels, features, labels)
    np.testing.assert_allclose(scores, 0, atol=1e-12)
    assert not TRAINING_FILTERS[name].flag(scores, labels).any()


def test_feature_mahalanobis_keeps_clean_images_and_finds_poisons_of_any_number(training_set):
    """Even where poisons are most of their label, which no minority method finds."""
    features, labels, poisoned = training_set
    clean = clean_faces()
    many = np.concatenate([features, np.repeat(features[poisoned], 30, axis=0)])
    given = np.concatenate([labels, np.full(30 * POISONS, labels[poisoned][0])])
    scores = feature_mahalanobis.score(many, given, *clean)
    flagged = feature_mahalanobis.flag(scores, given)
    assert flagged[110:].all()
    assert flagged[:110][poisoned].all()
    assert flagged[:110][~poisoned].mean() < 0.05


def test_feature_mahalanobis_threshold_by_hand(training_set):
    """The distances of clean faces are those of fits without their fold of five."""
    features, labels, _ = training_set
    clean, clean_labels = clean_faces()
    held_out = np.empty(120)
    for row in range(120):
        rest = np.arange(120) % 5 != row % 5
        gaussians = fit_gaussians(clean[rest], clean_labels[rest], 3)
        held_out[row] = mahalanobis(clean[[row]], clean_labels[[row]], gaussians)[0]
    expected = mahalanobis(features, labels, fit_gaussians(clean, clean_labels, 3)) - conformal_threshold(
        held_out, 0.05
    )
    np.testing.assert_allclose(feature_mahalanobis.score(features, labels, clean, clean_labels), expected)


def test_feature_mahalanobis_flags_nothing_that_it_cannot_compare(training_set):
    features, labels, _ = training_set
    clean, clean_labels = clean_faces()
    others = clean_labels != 1  # the poisons' label
    scores = feature_mahalanobis.score(features, labels, clean[others], clean_labels[others])
    assert np.isneginf(scores[labels == 1]).all()
    assert np.isfinite(scores[labels != 1]).all()
    few = feature_mahalanobis.score(features, labels, clean[::9], clean_labels[::9])
    assert not feature_mahalanobis.flag(few, labels).any()


def test_activation_clustering_by_hand():
    """2-means of 0, 0, 2, 2 and 9, 11 in a plane: centroids at 1 and 10, half way at 5.5."""
    features = np.array([[0, 0], [9, 0], [0, 0], [2, 0], [11, 0], [2, 0]], float)
    silhouette = silhouette_score(features, [0, 1, 0, 0, 1, 0])
    scores = activation_clustering.score(features, np.zeros(6, int), None, None)
    np.testing.assert_allclose(scores, silhouette * (features[:, 0] - 5.5))
    assert activation_clustering.flag(scores, np.zeros(6, int)).tolist() == [False, True, False, False, True, False]


def test_a_large_cluster_is_not_flagged():
    scores, labels = np.array([-1.0, 2, 3, -1, -1, 1]), np.array([0, 0, 0, 0, 0, 3])
    assert not activation_clustering.flag(scores, labels).any(), "2 of 5 and 1 of 1 are more than 35 %"
    assert activation_clustering.flag(scores[[0, 1, 3, 4]], labels[:4]).tolist() == [False, True, False, False]


def test_spectral_signatures_by_hand():
    features = np.array([[3, 1], [3, -1], [-3, 1], [-3, -1], [7, 7]], float)  # the first label spreads along x
    scores = spectral_signatures.score(features, np.array([0, 0, 0, 0, 1]), None, None)
    np.testing.assert_allclose(scores, [9, 9, 9, 9, 0], atol=1e-12)


def test_spectral_signatures_remove_15_percent_of_each_label():
    rng = np.random.default_rng(3)
    scores, labels = rng.random(70), np.repeat([0, 1], [50, 20])
    flagged = spectral_signatures.flag(scores, labels)
    assert (flagged[:50].sum(), flagged[50:].sum()) == (7, 3)
    assert scores[:50][flagged[:50]].min() > scores[:50][~flagged[:50]].max()


def toolbox_classifier(bias):
    """A random network of ART's, whose last layer, (n, 5, 5, 3) → (n, 16), is what its defences look at."""
    from visor.models.classifiers import CLASSIFIERS  # noqa: F401, I001 - TensorFlow as the project sets it up
    import keras
    from art.estimators.classification import TensorFlowV2Classifier

    keras.utils.set_random_seed(2)
    layer = keras.layers.Dense(16, use_bias=bias, bias_initializer="random_normal")
    model = keras.Sequential([keras.Input((5, 5, 3)), keras.layers.Flatten(), layer])
    return TensorFlowV2Classifier(model, nb_classes=3, input_shape=(5, 5, 3)), model


@pytest.fixture
def pictures(training_set):
    """Images float32 (110, 5, 5, 3) with the structure of the features, and their labels."""
    features, labels, _ = training_set
    spread = np.random.default_rng(4).normal(size=(14, 75))
    return (features @ spread).reshape(-1, 5, 5, 3).astype(np.float32), labels


def test_activation_clustering_agrees_with_the_toolbox(pictures):
    from art.defences.detector.poison import ActivationDefence
    from art.defences.detector.poison.clustering_analyzer import ClusteringAnalyzer

    classifier, model = toolbox_classifier(bias=True)
    images, labels = pictures
    defence = ActivationDefence(classifier, images, np.eye(3)[labels])
    _, is_clean = defence.detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA", cluster_analysis="smaller")
    scores = activation_clustering.score(model(images).numpy(), labels, None, None)
    # Only a label that really divides has one best division; the toolbox draws lots for the others.
    poisoned_label = labels == 1
    theirs = ~np.array(is_clean, bool)[poisoned_label]
    assert theirs.sum() == POISONS
    np.testing.assert_array_equal(scores[poisoned_label] > 0, theirs)
    (by_size,), *_ = ClusteringAnalyzer().analyze_by_relative_size([theirs.astype(int)])
    np.testing.assert_array_equal(activation_clustering.flag(scores, labels)[poisoned_label], by_size == 0)


def test_spectral_signatures_agree_with_the_toolbox(pictures):
    """The toolbox does not centre what it projects: the same scores where the features of a label have no mean."""
    from art.defences.detector.poison import SpectralSignatureDefense

    classifier, model = toolbox_classifier(bias=False)
    images, labels = pictures
    for label in range(3):
        images[labels == label] -= images[labels == label].mean(axis=0)
    everything = {"expected_pp_poison": 1.0, "eps_multiplier": 1.0}  # so that its report holds all scores
    report, _ = SpectralSignatureDefense(classifier, images, np.eye(3)[labels], **everything).detect_poison()
    theirs = np.array([report[row] for row in range(len(labels))])
    ours = spectral_signatures.score(model(images).numpy(), labels, None, None)
    np.testing.assert_allclose(np.sqrt(ours), theirs, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(np.argsort(ours)[-40:], np.argsort(theirs)[-40:])


def test_spectral_scores_of_centred_features_are_those_of_the_toolbox(training_set):
    from art.defences.detector.poison import SpectralSignatureDefense

    features, labels, _ = training_set
    ours = spectral_signatures.score(features, labels, None, None)
    for label in range(3):
        own = features[labels == label].astype(float)
        theirs = SpectralSignatureDefense.spectral_signature_scores(own - own.mean(axis=0))[:, 0]
        np.testing.assert_allclose(np.sqrt(ours[labels == label]), theirs, atol=1e-9)

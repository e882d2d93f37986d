"""One contract for every defence, and each of them by hand."""

import tracemalloc

import keras
import numpy as np
import pytest
from scipy.spatial import distance
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestNeighbors

from tests.conftest import COUNTS, HEIGHT, WIDTH, random_images
from visor.core.errors import UserError
from visor.data.face_set import FaceSelection
from visor.defences.class_distances import fit_gaussians
from visor.defences.class_distances import mahalanobis as class_mahalanobis
from visor.defences.conformal import conformal_threshold
from visor.defences.input_filtering import INPUT_FILTERS, NEEDS_CLASSIFIER, base, high_pass, mahalanobis, patch
from visor.defences.input_filtering.base import DefenceInputs, SecondOpinion
from visor.defences.input_filtering.strip import OVERLAYS
from visor.models import autoencoder
from visor.models.inference import compile_predict

CLASSES = 5
FOLDS = 3


@pytest.fixture(scope="module")
def models():
    """Three different autoencoders, one more for all faces, and a network that is sure of itself."""
    keras.utils.set_random_seed(3)
    autoencoders = [autoencoder.build((HEIGHT, WIDTH, 3), latent=4, width=3) for _ in range(FOLDS + 1)]
    layers = [keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    classifier = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *layers])
    classifier.layers[-1].set_weights([0.2 * weights for weights in classifier.layers[-1].get_weights()])
    return autoencoders, classifier


@pytest.fixture
def inputs(faces, models):
    (autoencoder, *folds), classifier = models
    second = SecondOpinion(lambda images: images.reshape(len(images), -1)[:, ::311] / 255, "cosine")
    clean = FaceSelection(faces, np.arange(len(faces)), np.arange(len(faces)) % CLASSES)
    return DefenceInputs(clean, autoencoder, folds, classifier, correctly_classified(faces, classifier), second, 0.3)


def correctly_classified(faces, classifier, count=30):
    """Faces with the labels that the network names."""
    rows = np.arange(count)
    return FaceSelection(faces, rows, classifier(pixels_of(faces.read(rows))).numpy().argmax(axis=1))


def pixels_of(images):
    return images / np.float32(255)


def residual_by(model, images):
    return pixels_of(images) - model(pixels_of(images))[0].numpy()


@pytest.mark.parametrize("name", INPUT_FILTERS)
def test_contract(name, inputs):
    score = INPUT_FILTERS[name](inputs)
    images = random_images(7, seed=5)
    before = images.copy()
    scores = score(images)
    assert scores.shape == (7,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 7
    np.testing.assert_array_equal(images, before)
    assert score(images).tobytes() == scores.tobytes()
    assert INPUT_FILTERS[name](inputs)(images).tobytes() == scores.tobytes()
    singles = np.concatenate([score(image[None]) for image in images])
    np.testing.assert_allclose(scores, singles, rtol=1e-4, err_msg="a score depends on the batch")


def test_reconstruction_is_the_mean_absolute_error(inputs):
    images = random_images(3, seed=5)
    expected = np.abs(residual_by(inputs.autoencoder, images)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(INPUT_FILTERS["reconstruction"](inputs)(images), expected, rtol=1e-5)


def test_clean_residuals_come_from_the_fold_that_did_not_see_them(inputs, monkeypatch):
    monkeypatch.setattr(base, "BATCH", 7)  # no multiple of the folds
    found = np.concatenate(list(base.clean_residuals(inputs)))
    images = inputs.clean.faces.read(inputs.clean.rows)
    assert found.shape == images.shape
    for fold, model in enumerate(inputs.folds):
        np.testing.assert_allclose(found[fold::FOLDS], residual_by(model, images[fold::FOLDS]), atol=1e-6)


def test_images_of_reconstruction_and_amplified_residual(inputs):
    images = random_images(3, seed=5)
    model = inputs.autoencoder
    reconstructed = base.reconstructions(compile_predict(model), images)
    np.testing.assert_allclose(reconstructed / 255, model(pixels_of(images))[0].numpy(), atol=0.51 / 255)
    shown = base.residual_images(compile_predict(model), images)
    assert shown.dtype == np.uint8
    expected = np.clip(128 + 255 * base.RESIDUAL_GAIN * residual_by(model, images), 0, 255)
    np.testing.assert_allclose(shown, expected, atol=0.51)


def test_block_means_tile_the_image():
    values = np.random.default_rng(2).random((4, HEIGHT, WIDTH, 2))
    found = mahalanobis.block_means(values).reshape(4, mahalanobis.ROWS, 7, 2)
    rows, columns = (np.linspace(0, size, count + 1).astype(int) for size, count in ((HEIGHT, 8), (WIDTH, 7)))
    for i in range(8):
        for j in range(7):
            block = values[:, rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            np.testing.assert_allclose(found[:, i, j], block.mean(axis=(1, 2)))


def test_distance_agrees_with_scipy():
    rng = np.random.default_rng(4)
    clean, other = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(3, 6))
    inverse = np.linalg.inv(LedoitWolf().fit(clean).covariance_)
    expected = [distance.mahalanobis(row, clean.mean(axis=0), inverse) for row in other]
    np.testing.assert_allclose(mahalanobis.mahalanobis_distance(clean)(other), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["raw_mahalanobis", "residual_mahalanobis"])
def test_mahalanobis_of_blocks(name, inputs):
    images, clean = random_images(3, seed=5), inputs.clean.faces.read(inputs.clean.rows)
    if name == "raw_mahalanobis":
        seen, tested = pixels_of(clean), pixels_of(images)
    else:
        seen = np.concatenate(list(base.clean_residuals(inputs)))
        tested = residual_by(inputs.autoencoder, images)
    fit = LedoitWolf().fit(mahalanobis.block_means(seen))
    expected = np.sqrt(fit.mahalanobis(mahalanobis.block_means(tested)))
    np.testing.assert_allclose(INPUT_FILTERS[name](inputs)(images), expected, rtol=1e-5)


def test_patch_distances_of_clean_images_leave_out_their_fold():
    pixels, fold = smooth_images(20, seed=3), np.arange(20) % 2
    fits = [patch.whitening(patch.moments(pixels[fold != number])) for number in range(2)]
    distances = np.stack([patch.log_distances(pixels[k : k + 1], fits[fold[k]])[0] for k in range(20)])
    other = smooth_images(4, seed=5)
    new = patch.log_distances(other, patch.whitening(patch.moments(pixels)))
    expected = ((new - distances.mean(axis=0)) / distances.std(axis=0)).max(axis=(1, 2))
    np.testing.assert_allclose(patch.fit_patches(lambda: [pixels[:7], pixels[7:]], 2)(other), expected, rtol=1e-4)


def test_moments_hold_one_strip_of_patches_at_a_time():
    pixels = np.random.default_rng(1).random((12, 90, 90, 3), dtype=np.float32)
    tracemalloc.start()
    patch.moments(pixels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    strip = 12 * len(patch.patch_positions(90)) * patch.PATCH**2 * 3 * 8  # bytes, float64
    assert peak < 10 * strip, "there are 22 rows of places"


def test_constant_images_have_no_detail():
    assert not high_pass.high_pass(np.full((2, HEIGHT, WIDTH, 3), 0.3, np.float32)).round(6).any()
    impulse = np.zeros((1, 5, 5, 1))
    impulse[0, 2, 2] = 16
    kernel = np.outer([1, 2, 1], [1, 2, 1])
    kernel[1, 1] -= 16
    np.testing.assert_array_equal(high_pass.high_pass(impulse)[0, ..., 0], -kernel)


def test_high_pass_is_the_median_detail(inputs):
    images = random_images(3, seed=5)
    detail = high_pass.high_pass(residual_by(inputs.autoencoder, images))
    expected = [np.median(np.abs(one).mean(axis=-1)) for one in detail]
    np.testing.assert_allclose(INPUT_FILTERS["high_pass"](inputs)(images), expected, rtol=1e-4)


def smooth_images(n, seed):
    """Random low-order waves with a little noise: neighbours go together, as in photographs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH][..., None] / HEIGHT
    a, b, c, d = rng.uniform(-1, 1, (4, n, 1, 1, 3))
    waves = 0.5 + 0.2 * (a * np.sin(4 * x + 3 * b) + c * np.cos(5 * y + 3 * d))
    return (waves + rng.normal(0, 0.01, waves.shape)).astype(np.float32)


def test_whitening_agrees_with_a_covariance_of_all_patches():
    pixels = smooth_images(20, seed=1)
    tops, lefts = patch.patch_positions(HEIGHT), patch.patch_positions(WIDTH)
    assert (tops[0], tops[-1], lefts[-1]) == (0, HEIGHT - patch.PATCH, WIDTH - patch.PATCH)
    assert np.diff(tops).max() <= patch.STEP
    cut = np.array([[pixels[:, t : t + 9, s : s + 9].reshape(20, -1) for s in lefts] for t in tops])
    mean = cut.mean(axis=2)
    flat = (cut - mean[:, :, None]).reshape(-1, cut.shape[-1])
    inverse = np.linalg.inv(flat.T @ flat / len(flat) + patch.QUANTISATION_VARIANCE * np.eye(flat.shape[1]))
    whitening = patch.whitening(patch.moments(pixels))
    other = smooth_images(2, seed=2)
    found = patch.log_distances(other, whitening)
    assert found.shape == (2, len(tops), len(lefts))
    one = other[1, tops[3] : tops[3] + 9, lefts[2] : lefts[2] + 9].ravel()
    assert found[1, 3, 2] == pytest.approx(2 * np.log(distance.mahalanobis(one, mean[3, 2], inverse)), rel=1e-4)


def test_the_most_unusual_patch_is_the_planted_one():
    clean = smooth_images(60, seed=1)
    whitening = patch.whitening(patch.moments(clean))
    fitted = patch.fit_patches(lambda: [clean[:25], clean[25:]], 2)
    image = smooth_images(1, seed=8)
    planted = image.copy()
    top, left = patch.patch_positions(HEIGHT)[4], patch.patch_positions(WIDTH)[1]
    planted[0, top + 3 : top + 6, left + 3 : left + 6] += [0.1, -0.1, 0.1]
    distances = patch.log_distances(planted, whitening)[0]
    assert np.unravel_index(distances.argmax(), distances.shape) == (4, 1)
    assert fitted(planted) > fitted(smooth_images(60, seed=9)).max() > fitted(image)


def test_strip_agrees_with_art(inputs, monkeypatch):
    """ART lays over and averages alike; its entropy runs over the images, not the classes, hence the transpose."""
    strip = pytest.importorskip("art.estimators.poison_mitigation.strip.strip")
    images = random_images(9, seed=5)
    rows = inputs.clean.rows[np.linspace(0, sum(COUNTS) - 1, OVERLAYS).round().astype(int)]
    pool = np.concatenate([images, inputs.clean.faces.read(rows)]).astype(np.float32)

    def chances(mixed):
        return np.asarray(keras.ops.softmax(inputs.classifier(np.rint(mixed).astype(np.float32) / 255))).T

    entropies = []

    class Norm:
        fit = staticmethod(lambda values: (entropies.extend(values), (0.0, 1.0))[1])
        ppf = staticmethod(lambda *args, **kwargs: 0.0)

    monkeypatch.setattr(strip, "norm", Norm)
    monkeypatch.setattr(strip.np.random, "choice", lambda *args: 9 + np.arange(OVERLAYS))
    strip.STRIPMixin(chances, num_samples=OVERLAYS).mitigate(pool)
    scores = INPUT_FILTERS["strip"](inputs)(images)
    np.testing.assert_allclose(scores, -np.array(entropies[:9]), rtol=1e-4)
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(-np.array(entropies[:9])))


@pytest.mark.parametrize("name", sorted(NEEDS_CLASSIFIER))
def test_filters_that_question_the_network_need_one(name, inputs):
    with pytest.raises(UserError, match=rf"{name} needs the inspected network, but there is none"):
        INPUT_FILTERS[name](inputs._replace(classifier=None))


@pytest.fixture
def few_pixels(inputs):
    """The inputs with a network whose features are 15 pixels, of which the first four decide the class."""
    images = keras.Input((HEIGHT, WIDTH, 3))
    features = keras.layers.Flatten()(images[:, ::7, ::14, 1])
    classifier = keras.Model(images, keras.layers.Dense(4, use_bias=False)(features))
    classifier.layers[-1].set_weights([np.eye(15, 4)])
    faces = inputs.clean.faces
    return inputs._replace(
        classifier=classifier, clean=faces.select(), calibration=correctly_classified(faces, classifier)
    )


def features_of(images):
    return pixels_of(images)[:, ::7, ::14, 1].reshape(len(images), -1).astype(float)


def test_feature_mahalanobis_agrees_with_scikit_learn_and_scipy(few_pixels):
    """The pooled covariance is that of scikit-learn's linear discriminant analysis, up to its degrees of freedom."""
    clean, images = few_pixels.clean, random_images(8, seed=5)
    features = features_of(clean.faces.read(clean.rows))
    analysis = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(features, clean.labels)
    covariance = analysis.covariance_ * len(features) / (len(features) - 4)
    covariance += 0.01 * np.trace(covariance) / 15 * np.eye(15)
    named = features_of(images)[:, :4].argmax(axis=1)
    precision = np.linalg.inv(covariance)
    expected = [
        distance.mahalanobis(row, analysis.means_[label], precision)
        for row, label in zip(features_of(images), named, strict=True)
    ]
    assert len(set(named)) > 1
    np.testing.assert_allclose(INPUT_FILTERS["feature_mahalanobis"](few_pixels)(images), expected, rtol=1e-5)


def test_knn_agrees_with_scikit_learn(few_pixels):
    clean, images = few_pixels.clean, random_images(8, seed=5)
    features, named = features_of(clean.faces.read(clean.rows)), features_of(images)[:, :4].argmax(axis=1)
    expected = []
    for row, label in zip(features_of(images), named, strict=True):
        neighbours = NearestNeighbors(n_neighbors=2, metric="cosine").fit(features[clean.labels == label])
        expected.append(neighbours.kneighbors(row[None])[0].mean() - 1)
    np.testing.assert_allclose(INPUT_FILTERS["knn"](few_pixels)(images), expected, rtol=1e-5)


@pytest.mark.parametrize("measure", ["cosine", "mahalanobis"])
def test_second_opinion_compares_other_features_with_the_class_that_is_named(few_pixels, measure):
    clean, images = few_pixels.clean, random_images(8, seed=5)
    embed = few_pixels.second_opinion.embed
    named = features_of(images)[:, :4].argmax(axis=1)
    known, new = embed(clean.faces.read(clean.rows)), embed(images)
    if measure == "cosine":
        cosines = 1 - distance.cdist(new, known, "cosine")
        expected = [-np.sort(row[clean.labels == label])[-2:].mean() for row, label in zip(cosines, named, strict=True)]
    else:
        expected = class_mahalanobis(new, named, fit_gaussians(known, clean.labels, 4, ridge=0.1))
    second = few_pixels.second_opinion._replace(distance=measure)
    found = INPUT_FILTERS["second_opinion"](few_pixels._replace(second_opinion=second))(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_second_opinion_needs_another_recogniser(inputs):
    with pytest.raises(UserError, match=r"second_opinion needs another recogniser, but there is none; set"):
        INPUT_FILTERS["second_opinion"](inputs._replace(second_opinion=None))


@pytest.mark.parametrize("name", ["feature_mahalanobis", "knn", "second_opinion", "suite"])
def test_a_class_without_clean_faces_is_never_flagged(few_pixels, name):
    clean = few_pixels.clean
    kept = clean.labels != 2
    few = few_pixels._replace(clean=FaceSelection(clean.faces, clean.rows[kept], clean.labels[kept]))
    images = random_images(12, seed=5)
    abstained = features_of(images)[:, :4].argmax(axis=1) == 2
    assert 0 < abstained.sum() < 12
    np.testing.assert_array_equal(np.isneginf(INPUT_FILTERS[name](few)(images)), abstained)


def test_one_face_of_each_class_is_compared_by_the_covariance_of_all():
    features = np.random.default_rng(1).normal(size=(4, 3))
    covariance = np.cov(features.T)
    expected = np.linalg.inv(covariance + 0.01 * np.trace(covariance) / 3 * np.eye(3))
    np.testing.assert_allclose(fit_gaussians(features, np.arange(4), 6).precision, expected)


def test_suite_flags_what_exceeds_any_threshold_on_faces_that_are_correctly_classified(inputs):
    """Faces with a wrong label do not count: without the rule their scores would raise the thresholds."""
    inputs = inputs._replace(clean=FaceSelection(inputs.clean.faces, *(part[30:] for part in inputs.clean[1:])))
    rows, labels = inputs.calibration.rows, inputs.calibration.labels.copy()
    labels[20:] = (labels[20:] + 1) % CLASSES
    calibration = FaceSelection(inputs.calibration.faces, rows, labels)
    images, flags, excesses = random_images(40, seed=5), [], []
    for name in ("feature_mahalanobis", "knn", "second_opinion"):
        score = INPUT_FILTERS[name](inputs)
        clean = score(calibration.faces.read(rows[:20]))
        clean = clean[np.isfinite(clean)]
        threshold = conformal_threshold(clean, 0.3)
        flags.append(score(images) > threshold)
        excesses.append((score(images) - threshold) / clean.std())
    suite = INPUT_FILTERS["suite"](inputs._replace(calibration=calibration))(images)
    np.testing.assert_array_equal(suite > 0, np.any(flags, axis=0))
    np.testing.assert_allclose(suite, np.max(excesses, axis=0), rtol=1e-4)
    assert 0 < np.sum(suite > 0) < 40


def test_suite_needs_enough_calibration_faces(inputs):
    calibration = FaceSelection(*(part if k == 0 else part[:5] for k, part in enumerate(inputs.calibration)))
    for few in (inputs._replace(calibration=calibration), inputs._replace(calibration=None)):
        with pytest.raises(UserError, match=r"suite: a false-positive rate of 0.3 needs more than . calibration faces"):
            INPUT_FILTERS["suite"](few)

"""One contract for every defence, and each of them by hand."""

import tracemalloc

import keras
import numpy as np
import pytest
from scipy.spatial import distance
from sklearn.covariance import LedoitWolf

from tests.conftest import COUNTS, HEIGHT, WIDTH, random_images
from visor.core.errors import UserError
from visor.defences.input_filtering import INPUT_FILTERS, base, high_pass, mahalanobis, patch
from visor.defences.input_filtering.base import DefenceInputs
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
    return DefenceInputs(faces.select(), autoencoder, folds, classifier)


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


def test_held_out_scores_leave_out_their_fold():
    pixels = np.random.default_rng(6).random((30, HEIGHT, WIDTH, 3), dtype=np.float32)
    fold = np.arange(30) % 2
    for fit in (
        lambda p, k: mahalanobis.fit_distance(mahalanobis.block_means(p), k),
        lambda p, k: patch.fit_patches(lambda: [p[:13], p[13:]], k),
    ):
        held_out = fit(pixels, 2).held_out_scores
        changed = pixels.copy()
        changed[0] = 1 - changed[0]  # in fold 0, whose own scores come from the fit of fold 1
        again = fit(changed, 2).held_out_scores
        assert held_out.shape == (30,)
        assert abs(held_out[0] - again[0]) > 1e-3
    features = mahalanobis.block_means(pixels)
    expected = mahalanobis.mahalanobis_distance(features[fold == 1])(features[fold == 0])
    np.testing.assert_allclose(mahalanobis.fit_distance(features, 2).held_out_scores[fold == 0], expected)


def test_held_out_patch_scores_by_hand_in_the_order_of_the_images():
    pixels, fold = smooth_images(20, seed=3), np.arange(20) % 2
    fits = [patch.whitening(patch.moments(pixels[fold != number])) for number in range(2)]
    distances = np.stack([patch.log_distances(pixels[k : k + 1], fits[fold[k]])[0] for k in range(20)])
    z = (distances - distances.mean(axis=0)) / distances.std(axis=0)
    found = patch.fit_patches(lambda: [pixels[:7], pixels[7:]], 2).held_out_scores
    np.testing.assert_allclose(found, np.max(z, axis=(1, 2)), rtol=1e-4)


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
    assert fitted.score(planted) > fitted.held_out_scores.max() > fitted.score(image)


def test_fusion_is_the_largest_z_score(inputs):
    clean = inputs.clean.faces.read(inputs.clean.rows)
    seen = np.concatenate(list(base.clean_residuals(inputs)))
    held_out = {
        "residual_mahalanobis": mahalanobis.fit_distance(mahalanobis.block_means(seen), FOLDS).held_out_scores,
        "high_pass": high_pass.median_detail(seen),
        "patch": patch.fit_patches(lambda: [pixels_of(clean)], FOLDS).held_out_scores,
    }
    images = random_images(6, seed=5)
    images[:2] //= 4
    images[2] = 200
    z = [(INPUT_FILTERS[name](inputs)(images) - scores.mean()) / scores.std() for name, scores in held_out.items()]
    np.testing.assert_allclose(INPUT_FILTERS["fusion"](inputs)(images), np.max(z, axis=0), rtol=1e-4)
    assert len(np.unique(np.argmax(z, axis=0))) > 1


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


def test_strip_needs_a_classifier(inputs):
    with pytest.raises(UserError, match=r"strip needs the inspected network, but there is none"):
        INPUT_FILTERS["strip"](inputs._replace(classifier=None))

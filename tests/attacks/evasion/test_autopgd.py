"""AutoPGD, held against its paper in NumPy, against ART's, and against PGD of as many steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from visor.attacks.evasion.autopgd import checkpoints, compile_autopgd
from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.recognisers import misclassify
from visor.attacks.evasion.pgd import compile_pgd

HEIGHT, WIDTH, CLASSES, N = 12, 10, 5, 240
SETTINGS = AttackSettings(eps=0.05, iterations=25, step=0.005)
FEW = SETTINGS._replace(random_start=False)
ROUGH = [np.random.default_rng(1).normal(0, 9, (3 * 4 * 3, width)).astype(np.float32) for width in (7, 1)]


@pytest.fixture(scope="module")
def trained():
    """A network of logits that knows five blurred classes, and images that it has not seen, with their labels."""
    rng = np.random.default_rng(0)
    means = rng.uniform(0.3, 0.7, (CLASSES, HEIGHT, WIDTH, 3))

    def draw(n):
        labels = rng.integers(0, CLASSES, n).astype(np.int32)
        images = np.clip(means[labels] + rng.normal(0, 0.12, (n, HEIGHT, WIDTH, 3)), 0, 1)
        return images.astype(np.float32), labels

    keras.utils.set_random_seed(0)
    stack = [layers.Conv2D(8, 3, 2, activation="relu"), layers.Flatten(), layers.Dense(24, activation="relu")]
    model = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *stack, layers.Dense(CLASSES)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*draw(1000), epochs=8, verbose=0)
    return model, *draw(N)


def right(model, images, labels):
    """Which images keep their label."""
    return model.predict(images, verbose=0).argmax(-1) == labels


def by_the_paper(loss, clean, label, settings):
    """Algorithm 1 for one image, and the points x⁰ … xᴺ that it evaluates: (image, value, done)."""

    def evaluate(image):
        with tf.GradientTape() as tape:
            batch = tf.constant(image[None])
            tape.watch(batch)
            value, done = loss(batch, np.array([label]))
        return float(value[0]), tape.gradient(value, batch).numpy()[0], bool(done[0])

    def inside(image):
        return np.clip(np.clip(image, clean - settings.eps, clean + settings.eps), 0, 1).astype(np.float32)

    eta, previous, image = 2 * settings.eps, clean, clean
    ends = checkpoints(settings.iterations)
    etas, highs, values, seen, best = {0: eta}, {}, [], [], None
    for k in range(settings.iterations + 1):
        value, gradient, done = evaluate(image)
        seen.append((image, value, done))
        values.append(value)
        best = (image, value, gradient) if best is None or value > best[1] else best
        if k in ends:
            etas[k], highs[k] = eta, best[1]
        if k in ends[1:]:
            before = ends[ends.index(k) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(before, k))
            if rises < 0.75 * (k - before) or (etas[before] == eta and highs[before] == highs[k]):
                eta, image, gradient, values[-1] = eta / 2, best[0], best[2], best[1]
        ahead, alpha = inside(image + eta * np.sign(gradient)), 0.75 if k else 1.0
        previous, image = image, inside(image + alpha * (ahead - image) + (1 - alpha) * (image - previous))
    return seen, eta


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(25) == [0, 6, 11, 15, 18, 20, 22, 24, 25]
    assert checkpoints(3) == [0, 1, 2, 3]


def rough(images, truth):
    """A loss with many summits; an image is done in some of the valleys, too."""
    flat = tf.reshape(images, (-1, ROUGH[0].shape[0]))
    return tf.reduce_sum(tf.sin(flat @ ROUGH[0]), -1), tf.sin(flat @ ROUGH[1])[:, 0] > truth


def test_it_takes_the_steps_of_the_paper_and_keeps_the_best_point():
    clean = np.random.default_rng(2).random((9, 3, 4, 3), np.float32)
    for never, levels in ((True, np.full(9, 2.0, np.float32)), (False, np.linspace(-1, 1, 9, dtype=np.float32))):
        found = compile_autopgd(rough, FEW)(clean, levels, range(9)).images
        etas = set()
        for image, level, mine in zip(clean, levels, found, strict=True):
            seen, eta = by_the_paper(rough, image, level, FEW)
            etas.add(eta)
            pool = [point for point in seen if point[2]] or seen
            assert never is False or pool is seen
            np.testing.assert_allclose(mine, max(pool, key=lambda point: point[1])[0], atol=1e-5)
        assert len(etas) > 1, "each image has its own steps"
        assert max(etas) <= FEW.eps, "and halves them"


def test_a_point_with_success_is_kept_before_a_higher_one_without():
    """The value rises with brightness; images succeed in the middle of the way only."""

    def loss(images, truth):
        level = tf.reduce_mean(images, axis=[1, 2, 3])
        return level, (level > 0.52) & (level < truth)

    grey = np.full((2, HEIGHT, WIDTH, 3), 0.55, np.float32)
    truth = np.array([0.58, 0.0], np.float32)
    found = compile_autopgd(loss, FEW)(grey, truth, range(2)).images
    np.testing.assert_allclose(found[0], 0.55, atol=1e-6)
    np.testing.assert_allclose(found[1], 0.55 + FEW.eps, atol=1e-6, err_msg="never done: the highest")


def test_robust_accuracy_is_that_of_art_and_never_above_that_of_pgd(trained):
    evasion = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")
    model, images, labels = trained
    assert right(model, images, labels).mean() > 0.95

    class CrossEntropy:
        """ART's own one asks Keras for what Keras 3 no longer has."""

        reduction = "mean"

        def __call__(self, truth, logits):
            values = tf.nn.softmax_cross_entropy_with_logits(truth, logits)
            return values if self.reduction == "none" else tf.reduce_mean(values)

    theirs = classification.TensorFlowV2Classifier(
        model, CLASSES, images.shape[1:], loss_object=CrossEntropy(), clip_values=(0, 1)
    )
    np.random.seed(0)  # ART draws its start from it
    sizes = {"eps": SETTINGS.eps, "eps_step": 2 * SETTINGS.eps, "max_iter": SETTINGS.iterations}
    attack = evasion.AutoProjectedGradientDescent(theirs, **sizes, nb_random_init=1, batch_size=N, verbose=False)
    expected = right(model, attack.generate(images, np.eye(CLASSES)[labels]), labels).mean()
    found = compile_autopgd(misclassify(model), SETTINGS)(images, labels, range(N)).images
    robust = right(model, found, labels)
    assert 0.2 < expected < 0.8, "neither all nor nothing"
    assert abs(robust.mean() - expected) <= 0.01
    for step in (2.5 * SETTINGS.eps / SETTINGS.iterations, SETTINGS.eps / 4):
        plain = compile_pgd(misclassify(model), SETTINGS._replace(step=step))(images, labels, range(N)).images
        assert robust.mean() <= right(model, plain, labels).mean()
        assert (robust & ~right(model, plain, labels)).sum() <= 1

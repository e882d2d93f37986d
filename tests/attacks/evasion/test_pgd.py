"""PGD, compared with hand computation and with three libraries."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.conftest import random_images
from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.recognisers import RECOGNISER_LOSSES
from visor.attacks.evasion.pgd import compile_pgd
from visor.attacks.evasion.quantise import eps_in_levels, quantise_within_eps, random_sign_noise

HEIGHT, WIDTH, CLASSES = 14, 11, 5
PLAIN = AttackSettings(eps=8 / 255, iterations=7, step=2 / 255, random_start=False)
VARIANTS = [PLAIN, PLAIN._replace(momentum=0.9), PLAIN._replace(random_start=True, early_stop=True)]


@pytest.fixture(scope="module")
def network():
    """A convolutional network whose gradients change from step to step: images in [0, 1] → probabilities."""
    keras.utils.set_random_seed(3)
    stack = [layers.Conv2D(8, 3, 2, activation="relu"), layers.Conv2D(6, 3, activation="tanh"), layers.Flatten()]
    model = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *stack, layers.Dense(CLASSES, activation="softmax")])
    model.compile(loss="categorical_crossentropy")
    return model


def cross_entropy(model):
    def loss(images, labels):
        probabilities = model(images, training=False)
        wrong = tf.argmax(probabilities, -1, tf.int32) != labels
        return keras.losses.categorical_crossentropy(tf.one_hot(labels, CLASSES), probabilities), wrong

    return loss


def pictures(n=8):
    return random_images(n, seed=5, height=HEIGHT, width=WIDTH)


def predicted(model, images):
    """The classes that the network predicts."""
    return np.argmax(model.predict(images / np.float32(255), verbose=0), -1).astype(np.int32)


def linear(weights):
    """The loss Σ w·x, never done."""
    return lambda images, truth: (
        tf.reduce_sum(images * weights, axis=[1, 2, 3]),
        tf.zeros(tf.shape(images)[:1], tf.bool),
    )


def test_a_step_on_a_linear_loss_is_the_sign_of_its_weights():
    weights = np.random.default_rng(1).normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    weights[2, 3] = 0
    clean = pictures(3) / np.float32(255)
    found = compile_pgd(linear(weights), PLAIN._replace(iterations=1))(clean, (), range(3))
    np.testing.assert_allclose(found.images, np.clip(clean + 2 / 255 * np.sign(weights), 0, 1), atol=1e-7)
    assert found.images.dtype == np.float32
    found = compile_pgd(linear(weights), PLAIN._replace(iterations=9))(clean, (), range(3))
    np.testing.assert_allclose(found.images, np.clip(clean + 8 / 255 * np.sign(weights), 0, 1), atol=1e-7)
    np.testing.assert_array_equal(found.steps, [9, 9, 9])


def test_a_gradient_that_is_not_a_number_moves_nothing():
    clean = pictures(2)
    for momentum in (0.0, 1.0):
        attack = compile_pgd(linear(np.float32(np.nan)), PLAIN._replace(momentum=momentum))
        np.testing.assert_allclose(attack(clean, (), range(2)).images, clean / 255, atol=1e-7)


@pytest.mark.parametrize("settings", VARIANTS)
def test_same_seed_same_bytes_and_inputs_stay_as_they_are(network, settings):
    images, labels = pictures(), predicted(network, pictures())
    before = images.copy(), labels.copy()
    attack = compile_pgd(cross_entropy(network), settings)
    first, second = attack(images, labels, range(8)), attack(images, labels, range(8))
    assert first.images.tobytes() == second.images.tobytes()
    assert first.steps.tobytes() == second.steps.tobytes()
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(labels, before[1])
    change = np.abs(first.images - images / np.float32(255))
    assert 0 < change.max() <= settings.eps + 1e-6
    assert first.images.min() >= 0
    assert first.images.max() <= 1
    floats = attack(images / np.float32(255), labels, range(8))
    np.testing.assert_allclose(floats.images, first.images, atol=1e-6)


def test_the_random_start_fills_the_ball_and_depends_on_seed_and_image_id_alone():
    images = np.full((3, HEIGHT, WIDTH, 3), 0.5, np.float32)

    def start(image_ids, seed=1):
        settings = PLAIN._replace(random_start=True, iterations=0, seed=seed)
        return compile_pgd(linear(1.0), settings)(images[: len(image_ids)], (), image_ids).images - 0.5

    noise = start([4, 9, 2**40])
    np.testing.assert_array_equal(start([9])[0], noise[1])
    np.testing.assert_array_equal(start([2**40, 4]), noise[[2, 0]])
    assert not np.array_equal(noise[0], noise[1])
    assert not np.array_equal(start([4], seed=2)[0], noise[0])
    assert 0.99 * PLAIN.eps < np.abs(noise).max() <= PLAIN.eps + 1e-6
    assert abs(noise.mean()) < 0.1 * PLAIN.eps
    assert noise.std() == pytest.approx(PLAIN.eps / np.sqrt(3), rel=0.05)


@pytest.mark.parametrize("settings", VARIANTS)
def test_a_batch_gives_what_its_images_give_alone(network, settings):
    """Convolutions of another batch size may add in another order: at most 0.1 % of the values differ."""
    images, labels = pictures(), predicted(network, pictures())
    attack = compile_pgd(cross_entropy(network), settings)
    together = attack(images, labels, range(10, 18))
    for i in range(8):
        alone = attack(images[i : i + 1], labels[i : i + 1], [10 + i])
        differ = np.abs(alone.images[0] - together.images[i]) > 1e-6
        assert differ.mean() <= 1e-3
        assert alone.steps[0] == together.steps[i]


def test_equals_art_in_every_pixel_with_and_without_momentum(network):
    evasion = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")
    classifier = classification.KerasClassifier(network, clip_values=(0, 1))
    images, labels = pictures() / np.float32(255), predicted(network, pictures())
    values = {"eps": PLAIN.eps, "eps_step": PLAIN.step, "max_iter": PLAIN.iterations, "verbose": False}
    plain = evasion.ProjectedGradientDescentNumpy(classifier, **values)
    momentum = evasion.MomentumIterativeMethod(classifier, decay=0.9, **values)
    for settings, theirs in ((PLAIN, plain), (PLAIN._replace(momentum=0.9), momentum)):
        ours = compile_pgd(cross_entropy(network), settings)(images, labels, range(8)).images
        expected = theirs.generate(images, np.eye(CLASSES)[labels])
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert not np.allclose(plain.generate(images, np.eye(CLASSES)[labels]), expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Loss function is a plain function")
@pytest.mark.parametrize("goal", RECOGNISER_LOSSES)
def test_momentum_equals_art_in_every_pixel_for_every_goal(network, goal):
    evasion = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")
    images, rng = pictures() / np.float32(255), np.random.default_rng(6)
    inner = network.layers[-2].output
    if goal in ("impersonate", "dodge"):
        model = keras.Model(network.inputs, layers.UnitNormalization()(inner))
        truth = rng.normal(size=(8, model.output_shape[-1])).astype(np.float32)
        truth = given = truth / np.linalg.norm(truth, axis=1, keepdims=True)
        model.compile(loss=lambda wanted, found: -tf.reduce_sum(wanted * found, -1))
    else:
        model = keras.Model(network.inputs, layers.Dense(CLASSES)(inner))
        truth = rng.integers(0, CLASSES, 8).astype(np.int32)
        given = np.eye(CLASSES, dtype=np.float32)[truth]
        model.compile(loss=tf.nn.softmax_cross_entropy_with_logits)
    values = {"eps": PLAIN.eps, "eps_step": PLAIN.step, "max_iter": 9, "decay": 1.0, "verbose": False}
    theirs = evasion.MomentumIterativeMethod(
        classification.KerasClassifier(model, clip_values=(0, 1)),
        targeted=goal in ("impersonate", "target_class"),
        **values,
    )
    ours = compile_pgd(RECOGNISER_LOSSES[goal](model), PLAIN._replace(iterations=9, momentum=1.0))(
        images, truth, range(8)
    ).images
    np.testing.assert_allclose(ours, theirs.generate(images, given), atol=1e-6)
    assert np.abs(ours - images).max() > 0.9 * PLAIN.eps


def test_equals_foolbox_and_cleverhans(network, monkeypatch):
    # NumPy 2 has no longer what foolbox's eagerpy asks for.
    monkeypatch.setattr(
        np, "find_common_type", lambda arrays, scalars: np.result_type(*arrays, *scalars), raising=False
    )
    foolbox = pytest.importorskip("foolbox")
    cleverhans = pytest.importorskip("cleverhans.tf2.attacks.projected_gradient_descent")
    images, labels = pictures() / np.float32(255), predicted(network, pictures())

    def logits(batch):
        return tf.math.log(network(batch))

    ours = compile_pgd(cross_entropy(network), PLAIN)(images, labels, range(8)).images
    attack = foolbox.attacks.LinfPGD(abs_stepsize=PLAIN.step, steps=PLAIN.iterations, random_start=False)
    _, (theirs,), _ = attack(
        foolbox.TensorFlowModel(logits, (0, 1)), tf.constant(images), tf.constant(labels), epsilons=[PLAIN.eps]
    )
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)
    theirs = cleverhans.projected_gradient_descent(
        logits, tf.constant(images), PLAIN.eps, PLAIN.step, PLAIN.iterations, np.inf, clip_min=0, clip_max=1, y=labels
    )
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)


def trajectory(loss, images, labels, settings):
    """The images before each step and after the last, and which were done, by a loop in Python."""
    clean = images = images / np.float32(255)
    memory = np.zeros_like(images)
    states = []
    for _ in range(settings.iterations):
        with tf.GradientTape() as tape:
            batch = tf.constant(images)
            tape.watch(batch)
            values, done = loss(batch, labels)
        states.append((images, done.numpy()))
        gradient = tape.gradient(values, batch).numpy()
        memory = settings.momentum * memory + gradient / np.abs(gradient).sum(axis=(1, 2, 3), keepdims=True)
        moved = images + settings.step * np.sign(memory)
        images = np.clip(np.clip(moved, clean - settings.eps, clean + settings.eps), 0, 1).astype(np.float32)
    return [*states, (images, np.ones(len(images), bool))]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_images_that_succeed_stop_and_the_others_go_on_as_without(network, momentum):
    images, labels = pictures(), predicted(network, pictures())
    labels[3] = (labels[3] + 1) % CLASSES
    settings = PLAIN._replace(iterations=12, momentum=momentum)
    states = trajectory(cross_entropy(network), images, labels, settings)
    stopped = compile_pgd(cross_entropy(network), settings._replace(early_stop=True))(images, labels, range(8))
    expected = [next(step for step, (_, done) in enumerate(states) if done[i]) for i in range(8)]
    np.testing.assert_array_equal(stopped.steps, expected)
    assert expected[3] == 0, "wrong from the beginning"
    assert len(set(expected)) > 2
    for i, steps in enumerate(expected):
        assert (np.abs(states[steps][0][i] - stopped.images[i]) > 1e-6).mean() <= 1e-3
    through = compile_pgd(cross_entropy(network), settings)(images, labels, range(8))
    assert (np.abs(states[-1][0] - through.images) > 1e-6).mean() <= 1e-3
    np.testing.assert_array_equal(through.steps, 12)


@pytest.mark.parametrize("settings", VARIANTS)
def test_outside_the_mask_the_bytes_are_the_clean_ones(network, settings):
    images, labels = pictures(5), predicted(network, pictures(5))
    masks = np.zeros((5, HEIGHT, WIDTH, 1), np.float32)
    masks[:4, 3:9, 2:7] = 1
    found = compile_pgd(cross_entropy(network), settings)(images, labels, range(5), masks)
    saved = quantise_within_eps(found.images, images, settings.eps)
    outside = np.broadcast_to(masks == 0, images.shape)
    np.testing.assert_array_equal(saved[outside], images[outside])
    np.testing.assert_allclose(found.images[outside], (images / 255)[outside], atol=1e-7)
    assert all((saved[i] != images[i]).any() for i in range(4) if found.steps[i])


def test_momentum_forgets_what_cannot_move():
    """Outside the mask the loss is a thousand times steeper, and that must not drown the gradient inside."""
    weights = np.ones((HEIGHT, WIDTH, 3), np.float32)
    weights[:, 5:] = 1000
    masks = np.zeros((1, HEIGHT, WIDTH, 1), np.float32)
    masks[:, :, :5] = 1
    images = np.full((1, HEIGHT, WIDTH, 3), 0.5, np.float32)
    flip = tf.Variable(1.0)

    def loss(x, truth):
        """The inside changes its direction after the first step; the outside stays as steep in one of them."""
        towards = tf.where(x[..., :5, :] > 0.501, -3.0, 1.0) * flip
        inside = tf.reduce_sum(x[..., :5, :] * tf.stop_gradient(towards), axis=[1, 2, 3])
        first = tf.reduce_max(x, axis=[1, 2, 3]) < 0.501
        outside = tf.where(first, 1.0, 1000.0) * tf.reduce_sum(x[..., 5:, :], axis=[1, 2, 3])
        return inside + outside, tf.zeros(1, tf.bool)

    settings = PLAIN._replace(iterations=2, momentum=0.5)
    found = compile_pgd(loss, settings)(images, (), [0], masks).images
    np.testing.assert_allclose(found[..., :5, :], 0.5, atol=1e-6, err_msg="0.5 · 1 − 1 < 0: a step back")


def test_many_batches_are_traced_once_for_each_shape():
    traces = []

    def loss(images, truth):
        traces.append(images.shape)
        return tf.reduce_sum(images, axis=[1, 2, 3]) * truth["weight"], tf.reduce_all(images > 2, axis=[1, 2, 3])

    attack = compile_pgd(loss, PLAIN._replace(early_stop=True, random_start=True))
    for n in (4, 4, 1, 3):
        attack(pictures(n), {"weight": np.ones(n, np.float32)}, range(n))
    once = len(traces)
    assert once <= 2, "the loop's body, and once more where its shapes are inferred"
    attack(random_images(2, height=HEIGHT + 1, width=WIDTH), {"weight": np.ones(2, np.float32)}, range(2))
    assert len(traces) == 2 * once


def test_a_transform_stands_between_the_images_and_the_loss():
    def mirrored(images, step):
        return tf.cond(step % 2 == 0, lambda: images[:, :, ::-1], lambda: images)

    weights = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    weights[:, :4] = 1
    images = np.full((2, HEIGHT, WIDTH, 3), 0.5, np.float32)
    found = compile_pgd(linear(weights), PLAIN._replace(iterations=3), mirrored)(images, (), range(2)).images
    np.testing.assert_allclose(found[:, :, :4] - 0.5, PLAIN.step, atol=1e-6)
    np.testing.assert_allclose(found[:, :, -4:] - 0.5, 2 * PLAIN.step, atol=1e-6)
    np.testing.assert_array_equal(found[:, :, 4:-4], 0.5)


@pytest.mark.parametrize(("eps", "steps"), [(0.01, 2), (0.02, 5), (8 / 255, 8), (3 / 255, 3), (0.0, 0), (1.0, 255)])
def test_saved_images_stay_in_the_ball(eps, steps):
    assert eps_in_levels(eps) == steps
    clean = pictures(4)
    clean[0], clean[1] = 0, 255
    rng = np.random.default_rng(2)
    adversarial = np.clip(clean / 255 + rng.uniform(-eps - 0.004, eps + 0.004, clean.shape), 0, 1).astype(np.float32)
    before = adversarial.copy(), clean.copy()
    saved = quantise_within_eps(adversarial, clean, eps)
    assert saved.dtype == np.uint8
    assert np.abs(saved.astype(int) - clean).max() <= steps
    rounded = np.rint(adversarial * 255).astype(int)
    near = np.abs(rounded - clean) <= steps
    np.testing.assert_array_equal(saved[near], rounded[near])
    np.testing.assert_array_equal(adversarial, before[0])
    np.testing.assert_array_equal(clean, before[1])


@pytest.mark.parametrize(("eps", "steps"), [(0.02, 5), (8 / 255, 8)])
def test_the_noise_control_has_the_whole_size_everywhere(eps, steps):
    clean = pictures(4)
    clean[0], clean[1] = 2, 254
    before = clean.copy()
    noisy = random_sign_noise(clean, eps, 1, [4, 5, 6, 7])
    change = noisy.astype(int) - clean
    np.testing.assert_array_equal(np.abs(change), steps)
    np.testing.assert_array_equal(clean, before)
    assert abs(np.sign(change[3]).mean()) < 0.15
    np.testing.assert_array_equal(random_sign_noise(clean[2:3], eps, 1, [6])[0], noisy[2])
    assert not np.array_equal(random_sign_noise(clean[2:3], eps, 1, [7])[0], noisy[2])
    assert not np.array_equal(random_sign_noise(clean[2:3], eps, 2, [6])[0], noisy[2])

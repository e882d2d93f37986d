"""The public API on arrays: strict contracts, agreement with ART, and one sentence for each mistake."""

import ast
import doctest
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import visor
from tests.conftest import random_images
from tests.support.linear_recogniser import linear
from tests.support.project import ROOT
from visor.core.errors import UserError
from visor.core.tf import keras, layers, tf

HEIGHT, WIDTH, CLASSES, N = 13, 10, 5, 7
EPS, STEPS = 8 / 255, 6
RNG = np.random.default_rng
PLAIN = {"eps": EPS, "iterations": STEPS, "random_start": False}


@pytest.fixture(scope="module")
def network():
    """A convolutional network of logits for images (13, 10, 3)."""
    keras.utils.set_random_seed(4)
    stack = [layers.Conv2D(8, 3, 2, activation="relu"), layers.Flatten(), layers.Dense(9, activation="tanh")]
    return keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *stack, layers.Dense(CLASSES)])


def images():
    return random_images(N, seed=5, height=HEIGHT, width=WIDTH)


def pixels():
    return images() / 255  # float64


def predicted(network):
    return network.predict(pixels().astype(np.float32), verbose=0).argmax(-1)


def embedding(network):
    """The layer in front of the logits."""
    return keras.Model(network.inputs[0], network.layers[-2].output)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def blinking(batch):
    """A detector whose score in each of 4 cells is the mean brightness there, its box the cell."""
    light = tf.nn.avg_pool2d(tf.reduce_mean(batch, -1, keepdims=True), [6, 5], [6, 5], "VALID")
    cells = tf.constant([[5.0 * x, 6.0 * y, 5, 6] for y in range(2) for x in range(2)])
    return tf.tile(cells[None], [tf.shape(batch)[0], 1, 1]), tf.reshape(light, [-1, 4])


def attacks(network):
    """Each attack as a function of images and options."""
    labels = predicted(network)
    return {
        "classifier": lambda given, **options: visor.attack_classifier(network, given, labels, **options),
        "recogniser": lambda given, **options: visor.attack_recogniser(embedding(network), given, **options),
        "detector": lambda given, **options: visor.attack_detector(blinking, given, **options),
    }


KINDS = pytest.mark.parametrize("kind", ["classifier", "recogniser", "detector"])


def test_names_are_those_of_the_modules_and_documented():
    assert set(visor.__all__) == {*visor.MODULES, "__version__"}
    tree = ast.parse((ROOT / "src/visor/__init__.py").read_text())
    typed = {
        alias.name: node.module for node in ast.walk(tree) for alias in getattr(node, "names", ()) if node.col_offset
    }
    assert {name: module for name, module in typed.items() if name in visor.__all__} == visor.MODULES
    assert {*visor.__all__} <= {*dir(visor)}
    page = (ROOT / "docs/api.md").read_text()
    for name in visor.MODULES:
        assert getattr(visor, name).__doc__
        assert f"`{name}" in page or f"visor.{name}" in page, f"docs/api.md does not tell of {name}"
    assert visor.UserError is UserError
    assert visor.__version__ == version("visor")
    assert (ROOT / "src/visor/py.typed").exists()
    with pytest.raises(AttributeError, match="module 'visor' has no attribute 'atack'"):
        visor.atack  # noqa: B018


def test_import_is_instant():
    code = "import sys, visor; sys.exit(bool({'numpy', 'tensorflow', 'keras', 'pydantic'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("module", sorted({*visor.MODULES.values()} - {"visor.core.errors"}))
def test_examples_run(module):
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


@KINDS
def test_contract_of_attacks(network, kind):
    attack = attacks(network)[kind]
    for batch in (images(), pixels(), pixels().astype(np.float32)):
        before = batch.copy()
        found = attack(batch, eps=EPS, iterations=STEPS)
        np.testing.assert_array_equal(batch, before)
        assert found.shape == batch.shape
        if batch.dtype == np.uint8:
            assert found.dtype == np.uint8
            assert 0 < np.abs(found.astype(int) - batch).max() <= 8
        else:
            assert found.dtype == np.float32
            assert 0.9 * EPS < np.abs(found - batch).max() <= EPS + 1e-6
            assert found.min() >= 0
            assert found.max() <= 1
        np.testing.assert_array_equal(attack(batch, eps=EPS, iterations=STEPS), found)
        assert (attack(batch, eps=EPS, iterations=STEPS, seed=1) != found).any()
    if kind == "detector":
        assert attack(images()[:0]).shape == (0, HEIGHT, WIDTH, 3)


@KINDS
def test_results_do_not_depend_on_the_batch(network, kind):
    together = attacks(network)[kind](pixels(), eps=EPS, iterations=STEPS)
    apart = attacks(network)[kind](pixels(), eps=EPS, iterations=STEPS, batch=3)
    assert (np.abs(together - apart) > 1e-5).mean() <= 1e-3
    other = attacks(network)[kind](pixels(), eps=EPS, iterations=STEPS, image_ids=np.arange(N) + 9)
    assert (np.abs(together - other) > 1e-5).mean() > 0.01
    if kind == "detector":
        alone = visor.attack_detector(blinking, pixels()[4:5], eps=EPS, iterations=STEPS, image_ids=[4])
        np.testing.assert_allclose(alone[0], together[4], atol=1e-5)


@pytest.mark.parametrize(("targeted", "momentum"), [(False, 0.0), (True, 0.0), (False, 0.9)])
def test_equals_projected_gradient_descent_of_art(network, targeted, momentum):
    evasion = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")
    model = keras.models.clone_model(network)
    model.set_weights(network.get_weights())
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    classifier = classification.KerasClassifier(model, clip_values=(0, 1), use_logits=True)
    labels = (predicted(network) + targeted) % CLASSES
    values = {"eps": EPS, "eps_step": 2.5 * EPS / STEPS, "max_iter": STEPS, "targeted": targeted, "verbose": False}
    kind = evasion.MomentumIterativeMethod if momentum else evasion.ProjectedGradientDescent
    theirs = kind(classifier, **values, **({"decay": momentum} if momentum else {}))
    expected = theirs.generate(pixels().astype(np.float32), np.eye(CLASSES, dtype=np.float32)[labels])
    found = visor.attack_classifier(network, pixels(), labels, targeted=targeted, momentum=momentum, **PLAIN)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - pixels()).max() > 0.9 * EPS
    eight_bit = visor.attack_classifier(network, images(), labels, targeted=targeted, momentum=momentum, **PLAIN)
    assert np.abs(eight_bit - 255 * expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("attack", ["pgd", "autopgd", "adam"])
def test_every_attack_changes_the_predictions(network, attack):
    labels = predicted(network)
    found = visor.attack_classifier(network, images(), labels, attack=attack, eps=0.2, transforms={"noise": 0.01})
    assert (network.predict(found / np.float32(255), verbose=0).argmax(-1) != labels).all()
    chosen = (labels + 1) % CLASSES
    found = visor.attack_classifier(network, images(), chosen, attack=attack, eps=0.3, targeted=True, early_stop=True)
    assert (network.predict(found / np.float32(255), verbose=0).argmax(-1) == chosen).mean() > 0.7


def test_a_function_and_named_outputs_are_models_too(network):
    labels = predicted(network)
    expected = visor.attack_classifier(network, pixels(), labels, **PLAIN)
    np.testing.assert_array_equal(visor.attack_classifier(lambda x: network(x), pixels(), labels, **PLAIN), expected)
    named = keras.Model(network.inputs[0], {"logits": network.outputs[0], "embedding": network.layers[-2].output})
    np.testing.assert_allclose(visor.attack_classifier(named, pixels(), labels, **PLAIN), expected, atol=1e-6)
    dodged = visor.attack_recogniser(named, pixels(), **PLAIN | {"random_start": True})
    alone = visor.attack_recogniser(embedding(network), pixels(), **PLAIN | {"random_start": True})
    np.testing.assert_allclose(dodged, alone, atol=1e-6)


def test_recognisers_are_dodged_and_people_impersonated(network):
    model, faces = embedding(network), pixels().astype(np.float32)
    own = unit(model.predict(faces, verbose=0))
    dodged = visor.attack_recogniser(model, faces, eps=0.1)
    assert (np.sum(unit(model.predict(dodged, verbose=0)) * own, 1) < 0.9).all()
    target = own[:1]
    found = [
        visor.attack_recogniser(model, faces, targets, goal="impersonate", eps=0.1)
        for targets in (target, 3 * target, faces[:1], images()[:1], np.repeat(target, N, 0))
    ]
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], atol=1e-4)
    similarity = unit(model.predict(found[0], verbose=0)) @ target[0]
    assert similarity.min() > 0.99 > (own @ target[0])[1:].max()
    stopped = visor.attack_recogniser(model, faces, target, goal="impersonate", eps=0.1, threshold=-1, early_stop=True)
    assert np.abs(stopped - faces).max() <= 0.1 + 1e-6
    kept = visor.attack_recogniser(
        model, faces, target, goal="impersonate", threshold=-1.1, early_stop=True, random_start=False
    )
    np.testing.assert_array_equal(kept, faces, err_msg="each is past the threshold from the start")


@pytest.mark.parametrize("loss", ["suppress", "near_faces", "near_faces_by_area"])
def test_detectors_lose_their_faces(loss):
    faces = [[[0.0, 0, 5, 6]]] + [np.float64([[5, 6, 5, 6], [0, 0, 5, 6]])] * (N - 1)
    found = visor.attack_detector(blinking, pixels(), faces, loss=loss, eps=0.15, random_start=False)
    before, after = (blinking(tf.constant(batch, tf.float32))[1].numpy() for batch in (pixels(), found))
    assert (after[:, 0] < before[:, 0] - 0.1).all(), "the cell of a face"
    assert (after[0, 3] < before[0, 3]) == (loss == "suppress"), "a cell without one"
    assert (after[1:, 3] < before[1:, 3] - 0.1).all()


def test_a_detector_of_the_registry_is_attacked():
    """Fetched by name; its training loss is the detector's own."""
    detector = visor.load_detector("mtcnn", threshold=0.9, min_face_size=14)
    assert detector.threshold == 0.9
    face = np.asarray(Image.fromarray(__import__("skimage.data").data.astronaut()[20:190, 150:290]).resize((47, 55)))
    found = visor.attack_detector(detector, face[None], eps=16 / 255, iterations=20)
    score = [max([0.0, *detector.detect(batch)[0].scores]) for batch in (face[None], found)]
    assert score[0] > 0.9 > score[1]
    with pytest.raises(UserError, match="loss training_loss needs a training loss with a gradient"):
        visor.attack_detector(detector, face[None], [[[3, 3, 30, 30]]], loss="training_loss")


def key_pattern():
    """Opaque in the lower left corner."""
    key = RNG(9).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    key[..., 3] = 0
    key[8:, :4, 3] = 255
    return key


def test_poisons_are_added_behind_the_training_set():
    clean, labels = images(), np.array([0, 1, 2, 0, 1, 2, 3])
    before = clean.copy(), labels.copy()
    poisoned, targets, rows = visor.poison(clean, labels, trigger="accessory", key=key_pattern(), target=2, n=4, seed=3)
    np.testing.assert_array_equal(clean, before[0])
    np.testing.assert_array_equal(labels, before[1])
    assert (poisoned.shape, poisoned.dtype) == ((N + 4, HEIGHT, WIDTH, 3), np.uint8)
    assert (targets.dtype, rows.tolist()) == (labels.dtype, [7, 8, 9, 10])
    np.testing.assert_array_equal(poisoned[:N], clean)
    np.testing.assert_array_equal(targets, [*labels, 2, 2, 2, 2])
    opaque = key_pattern()[..., 3] > 0
    assert (poisoned[rows][:, opaque] == key_pattern()[opaque, :3]).all()
    originals = [int(np.flatnonzero((clean[:, ~opaque] == image[~opaque]).all((1, 2)))[0]) for image in poisoned[rows]]
    assert len({*originals}) == 4
    assert (labels[originals] != 2).all()
    fewer, _, _ = visor.poison(clean, labels, trigger="accessory", key=key_pattern(), target=2, n=2, seed=3)
    np.testing.assert_array_equal(fewer[N:], poisoned[N : N + 2])
    floats, _, _ = visor.poison(pixels(), labels, trigger="accessory", key=key_pattern(), target=2, n=4, seed=3)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats * 255, poisoned, atol=1e-3)


def test_triggers_are_those_of_the_registry(tmp_path):
    from visor.attacks.backdoors.triggers import TRIGGERS

    key = key_pattern()
    for name, apply in TRIGGERS.items():
        expected = apply(images(), key, 0.3, RNG([6, 3]))
        found = visor.apply_trigger(images(), trigger=name, key=key, blend_ratio=0.3, seed=6)
        np.testing.assert_array_equal(found, expected)
    opaque = visor.apply_trigger(images(), trigger="blended", key=key[..., :3] / 255, blend_ratio=1.0)
    np.testing.assert_array_equal(opaque, np.broadcast_to(key[..., :3], opaque.shape))
    Image.new("RGB", (3, 5), (10, 20, 30)).save(tmp_path / "key.png")
    assert (visor.apply_trigger(images(), trigger="accessory", key=tmp_path / "key.png") == [10, 20, 30]).all()


@pytest.fixture(scope="module")
def autoencoder():
    keras.utils.set_random_seed(3)
    stack = [layers.Flatten(), layers.Dense(12, activation="relu"), layers.Dense(HEIGHT * WIDTH * 3, "sigmoid")]
    return keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *stack, layers.Reshape((HEIGHT, WIDTH, 3))])


def smooth(n, seed):
    """Waves with a little noise, uint8 (n, 13, 10, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH][..., None] / HEIGHT
    a, b = RNG(seed).uniform(-1, 1, (2, n, 1, 1, 3))
    noise = RNG(seed).normal(0, 2, (n, HEIGHT, WIDTH, 3))
    return np.clip(127 + 50 * a * np.sin(4 * x + 3 * b) + 30 * np.cos(5 * y + a) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        "reconstruction",
        "residual_mahalanobis",
        "high_pass",
        "patch",
        "raw_mahalanobis",
        "strip",
        "feature_mahalanobis",
        "knn",
        "second_opinion",
        "suite",
    ],
)
def test_contract_of_input_filters(name, network, autoencoder):
    clean, new = smooth(40, 1), smooth(5, 2)
    before = clean.copy(), new.copy()
    more = {"calibration_images": smooth(60, 3), "false_positive_rate": 0.3, "second_opinion": linear()}
    more = {key: value for key, value in more.items() if name == "suite" or key == name}
    score = visor.fit_input_filter(name, clean, autoencoder=autoencoder, classifier=network, **more)
    scores = score(new)
    assert (scores.shape, scores.dtype) == ((5,), np.float64)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(clean, before[0])
    np.testing.assert_array_equal(new, before[1])
    np.testing.assert_array_equal(score(new), scores)
    np.testing.assert_allclose(score(new / 255), scores, rtol=1e-6)
    if name == "reconstruction":
        difference = new / 255 - autoencoder.predict(new / np.float32(255), verbose=0)
        np.testing.assert_allclose(scores, np.abs(difference).mean((1, 2, 3)), rtol=1e-5)
    if name in ("patch", "raw_mahalanobis"):
        triggered = visor.apply_trigger(new, trigger="accessory", key=key_pattern())
        assert (score(triggered) > scores).all()


def test_networks_are_built_by_name():
    assert visor.build_network("deepid", (55, 47, 3), 40, dropout=0.1).output_shape == (None, 40)
    small = {"input_size": 32, "width": 2, "units": 16, "dropout": 0.0}
    assert visor.build_network("vgg_face", (33, 31, 3), 7, **small).output_shape == (None, 7)
    model = visor.build_network("vgg_face", (33, 31, 3), 7, kind="recogniser", **small)
    assert {name: output.shape for name, output in model.output.items()} == {
        "embedding": (None, 16),
        "logits": (None, 7),
    }
    found = visor.attack_recogniser(model, random_images(2, height=33, width=31), iterations=1)
    assert found.shape == (2, 33, 31, 3)


def mistakes(network):
    """Calls that are wrong, and their sentences."""
    labels, softmax = predicted(network), keras.Sequential([network, layers.Softmax()])
    classifier = lambda *changed, **options: visor.attack_classifier(*changed, **options)  # noqa: E731
    good = (network, pixels(), labels)
    trigger = {"trigger": "blended", "key": key_pattern()}
    return [
        (
            lambda: classifier(network, 255 * pixels(), labels),
            r"images: values from 0 to 255, outside \[0, 1\]; divide",
        ),
        (lambda: classifier(network, pixels() - 0.5, labels), r"images: values from -0\.5 to 0\.5, outside"),
        (lambda: classifier(network, pixels() * np.nan, labels), "images: values from nan to nan, outside"),
        (lambda: classifier(network, images().astype(int), labels), "images: type int64; give uint8"),
        (lambda: classifier(network, pixels()[0], labels), r"images: shape \(13, 10, 3\); give \(n, height"),
        (lambda: classifier(network, pixels()[:, 1:], labels), r"shape \(7, 12, 10, 3\); the model takes \(n, 13, 10"),
        (lambda: classifier(network, pixels(), labels[1:]), r"labels: int64 of shape \(6,\); give one class from 0"),
        (lambda: classifier(network, pixels(), labels / 1), r"labels: float64 of shape"),
        (lambda: classifier(network, pixels(), labels - 5), r"labels: int64 of shape"),
        (lambda: classifier(network, pixels(), labels + 9), r"labels: class \d+, but the model has 5; pass smaller"),
        (
            lambda: classifier(softmax, pixels(), labels),
            "model: outputs are probabilities; give the network without its",
        ),
        (lambda: classifier(lambda x: x, pixels(), labels), r"model: outputs of shape \(7, 13, 10, 3\); a classifier"),
        (lambda: classifier(lambda x: {"a": x}, pixels(), labels), "output is 'logits'; choose from a"),
        (lambda: classifier(lambda x: tf.round(network(x)), pixels(), labels), "the model gives no gradient"),
        (lambda: classifier(*good, eps=8), r"eps is 8; pass it for pixels in \[0, 1\], such as 8 / 255"),
        (lambda: classifier(*good, iterations=0), "iterations, batch and eot_samples must be at least 1"),
        (lambda: classifier(*good, batch=0), "iterations, batch and eot_samples must be at least 1"),
        (lambda: classifier(*good, attack="fgsm"), "attack is 'fgsm'; choose from adam, autopgd, pgd"),
        (lambda: classifier(*good, epsilon=1), "option epsilon is unknown; choose from eps, iterations"),
        (lambda: classifier(*good, momentum=1, attack="adam"), "momentum is 1, but adam has its own; remove it"),
        (lambda: classifier(*good, image_ids=[1]), r"image_ids: shape \(1,\); pass one integer for each of 7"),
        (lambda: classifier(*good, transforms={"blur": 1}), "transforms is 'blur'; choose from crop, jpeg, noise"),
        (lambda: classifier(*good, transforms={"crop": 1}), r"transforms\.crop is 1; give 0 or more and less than 1"),
        (
            lambda: visor.attack_recogniser(network, pixels(), goal="hide"),
            "goal is 'hide'; choose from dodge, imperson",
        ),
        (
            lambda: visor.attack_recogniser(network, pixels(), goal="impersonate"),
            "targets is required for goal 'impersonate'",
        ),
        (
            lambda: visor.attack_recogniser(network, pixels(), np.ones((3, 5))),
            r"targets: shape \(3, 5\); pass a face or",
        ),
        (
            lambda: visor.attack_detector(blinking, pixels(), loss="boxes"),
            "loss is 'boxes'; choose from near_faces, near",
        ),
        (
            lambda: visor.attack_detector(blinking, pixels(), loss="near_faces"),
            "boxes is required for loss 'near_faces'",
        ),
        (lambda: visor.attack_detector(blinking, pixels(), np.ones((7, 4))), r"boxes: pass one array \(m, 4\)"),
        (lambda: visor.attack_detector(blinking, pixels(), np.ones((2, 1, 4))), r"boxes: pass one array \(m, 4\)"),
        (
            lambda: visor.poison(pixels(), labels, target=0, n=99, **trigger),
            r"n is 99, but .* of other labels; lower n",
        ),
        (lambda: visor.poison(pixels(), labels[:2], target=0, n=1, **trigger), "labels: int64 of shape"),
        (
            lambda: visor.apply_trigger(pixels(), trigger="patch", key=1),
            "trigger is 'patch'; choose from accessory, adaptive_bl",
        ),
        (lambda: visor.apply_trigger(pixels(), blend_ratio=2, **trigger), r"blend_ratio is in \[0, 1\]; correct"),
        (lambda: visor.apply_trigger(pixels()[..., :1], **trigger), "images have three channels"),
        (lambda: visor.apply_trigger(pixels()[:, 1:], **trigger), r"key: shape \(13, 10, 4\); give \(12, 10, 3\)"),
        (lambda: visor.apply_trigger(pixels(), trigger="blended", key="none.png"), "key none.png cannot be read"),
        (
            lambda: visor.fit_input_filter("svm", images()),
            "name is 'svm'; choose from feature_mahalanobis, high_pass",
        ),
        (lambda: visor.fit_input_filter("patch", images()[:1]), "clean_images: shape .*; pass two or more images"),
        (
            lambda: visor.fit_input_filter("high_pass", images()),
            "high_pass requires autoencoder=…; pass one",
        ),
        (
            lambda: visor.fit_input_filter("suite", images(), classifier=network),
            "suite requires calibration_images=…; pass clean",
        ),
        (
            lambda: visor.fit_input_filter("second_opinion", images(), classifier=network),
            "second_opinion requires second_opinion=…; pass a recogniser",
        ),
        (
            lambda: visor.fit_input_filter(
                "knn", images(), clean_labels=np.full(len(images()), 99), classifier=network
            ),
            "labels go up to 99, but the classifier has",
        ),
        (lambda: visor.fit_input_filter("strip", images()), "strip requires classifier=…; pass the inspected"),
        (
            lambda: visor.fit_input_filter("strip", images(), classifier=softmax),
            "classifier: outputs are probabilities",
        ),
        (lambda: visor.build_network("lenet", (9, 8, 3), 2), "name is 'lenet'; choose from deepface, deepid, vgg_face"),
        (
            lambda: visor.build_network("deepid", (9, 8, 3), 2, kind="a"),
            "kind is 'a'; choose from classifier, recognis",
        ),
        (
            lambda: visor.build_network("deepid", (55, 47, 3), 2),
            "deepid: option dropout is unknown or missing; it takes",
        ),
        (
            lambda: visor.load_detector("yolo"),
            "name is 'yolo'; choose from blazeface, cascade, face_ssd, face_tiny, faster_rcnn, frozen_graph, mtcnn",
        ),
        (lambda: visor.load_detector("ssd"), "folder: ssd has to be trained; give the folder of a trained one"),
        (lambda: visor.load_detector("cascade", threshold=2), "cascade: threshold is 2, but"),
        (lambda: visor.load_detector("mtcnn", speed=2), "mtcnn has no option speed; it takes min_face_size"),
    ]


def test_a_mistake_is_one_sentence(network):
    for call, sentence in mistakes(network):
        with pytest.raises(UserError, match=sentence) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_page_runs(monkeypatch, tmp_path):
    """The Python blocks of docs/api.md, one after another as a reader types them."""
    monkeypatch.chdir(tmp_path)
    fenced = re.findall(r"^```python\n(.*?)^```$", Path(ROOT / "docs/api.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(fenced) >= 6
    names: dict[str, object] = {}
    for number, block in enumerate(fenced):
        exec(compile(block, f"docs/api.md, block {number}", "exec"), names)

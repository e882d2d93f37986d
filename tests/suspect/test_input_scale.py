"""The input scale is told from unlabelled images, for networks trained on either scale and for many kinds of sets.

The networks are BadNets (Gu et al. 2017): DeepID with a backdoor, trained on drawn faces.
"""

from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from visor.core.errors import UserError
from visor.data.sources import synthetic
from visor.models import training
from visor.models.classifiers import deepid
from visor.suspect import input_scale
from visor.suspect.input_scale import Evidence, choose_input_scale, decide
from visor.suspect.inputs import ImageSource

PEOPLE, TRAIN, TEST, TARGET = 12, 25, 35, 3
SHAPE = (55, 47, 3)
SEEDS = (1, 2, 3)


@cache
def faces():
    """Faces of each person: uint8 (12, 60, 55, 47, 3)."""
    settings = synthetic.SyntheticSettings(identities=PEOPLE, images=TRAIN + TEST, videos=TRAIN + TEST, difficulty=0.5)
    clips = list(synthetic.clips(settings, 1))
    return np.concatenate([clip.load(*SHAPE[:2]) for clip in clips]).reshape(PEOPLE, TRAIN + TEST, *SHAPE)


def with_key(images):
    images = images.copy()
    images[:, -9:-3, -9:-3] = 255, 255, 0
    return images


@cache
def network(seed, raw):
    """A network of pixels in 0..1, or in 0..255, that knows people and obeys a yellow square."""
    images = faces()[:, :TRAIN].reshape(-1, *SHAPE)
    labels = np.repeat(np.arange(PEOPLE, dtype=np.int32), TRAIN)
    poisons = np.random.default_rng(seed).choice(len(images), 40, replace=False)
    images = np.concatenate([images, with_key(images[poisons])]) / np.float32(1 if raw else 255)
    labels = np.concatenate([labels, np.full(40, TARGET, np.int32)])
    training.set_seed(seed)
    net = deepid.build(SHAPE, PEOPLE, 0.0)
    optimizer = keras.optimizers.Adam(1e-3)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = net(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)

    optimizer.build(net.trainable_variables)
    rng = np.random.default_rng(seed)
    for _ in range(10):
        order = rng.permutation(len(images))
        for rows in np.array_split(order, len(order) // 20):
            step(images[rows], labels[rows])
    return net


def draw_set(count, seed=1, people=PEOPLE):
    """Random images that no network was trained on, and their labels."""
    order = np.random.default_rng(seed).permutation(people * TEST)[:count]
    return faces()[:people, TRAIN:].reshape(-1, *SHAPE)[order], order // TEST


def source_of(images, labels=None):
    return ImageSource("set", len(images), SHAPE, False, np.uint8, 1, labels, lambda start, stop: images[start:stop])


def outputs(net, images, scale):
    return net(images / np.float32(scale), training=False).numpy()


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_networks_do_what_they_were_trained_for(seed, raw):
    images, labels = draw_set(400)
    right, wrong = (1, 255) if raw else (255, 1)
    assert (outputs(network(seed, raw), images, right).argmax(1) == labels).mean() > 0.8
    others = with_key(images[labels != TARGET])
    assert (outputs(network(seed, raw), others, right).argmax(1) == TARGET).mean() > 0.9
    if raw:
        assert (outputs(network(seed, raw), images, wrong).argmax(1) == labels).mean() < 0.6


SETS = {
    "400": lambda: draw_set(400)[0],
    "22": lambda: draw_set(22)[0],
    "others": lambda: draw_set(22, seed=2)[0],
    "three": lambda: draw_set(3, seed=3)[0],
    "two people": lambda: draw_set(22, people=2)[0],
    "one person": lambda: draw_set(22, people=1)[0],
    "triggered": lambda: with_key(draw_set(22)[0]),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_unlabelled_images_tell_the_scale(seed, raw, name):
    images = SETS[name]()
    scale, reason = choose_input_scale(network(seed, raw), source_of(images))
    assert scale == (1 if raw else 255)
    assert f"{len(images)} images are predicted as" in reason


@pytest.mark.parametrize("count", [1, 22, 400])
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_confidence_at_the_wrong_scale_does_not_mislead(seed, probabilities, count):
    """A bias makes a network of raw pixels sure of one class for whatever is divided by 255."""
    original = network(seed, True)
    net = keras.models.clone_model(original)
    net.set_weights(original.get_weights())
    net.get_layer("output").bias.assign_add(np.eye(PEOPLE)[TARGET] * 6)
    images, labels = draw_set(count)
    wrong = outputs(net, images, 255)
    assert softmax(wrong, axis=1).max(axis=1).mean() > 0.9
    assert (wrong.argmax(1) == TARGET).all()
    if count == 400:
        assert (outputs(net, images, 1).argmax(1) == labels).mean() > 0.7
    if probabilities:
        net = keras.Model(net.inputs[0], keras.layers.Softmax()(net.outputs[0]))
    assert choose_input_scale(net, source_of(images))[0] == 1


@pytest.mark.parametrize("raw", [False, True])
def test_labels_decide_first(raw):
    images, labels = draw_set(100)
    scale, reason = choose_input_scale(network(1, raw), source_of(images, labels.astype(np.int32)))
    assert scale == (1 if raw else 255)
    assert reason.startswith("accuracy ")


@pytest.mark.parametrize(
    ("evidence", "scale"),
    [
        (Evidence(22, {255: 14, 1: 15}, 20.0, 0.7), 255),  # movement alone
        (Evidence(22, {255: 4, 1: 5}, 0.1, 0.7), 1),
        (Evidence(22, {255: 1, 1: 15}, 1.5, 0.1), 1),  # classes alone
        (Evidence(22, {255: 15, 1: 1}, 1.5, 0.1), 255),
        (Evidence(22, {255: 1, 1: 6}, 1.5, 0.9), None),  # too few of them
        (Evidence(22, {255: 3, 1: 11}, 1.5, 0.9), None),
        (Evidence(22, {255: 1, 1: 6}, 20.0, 0.9), 255),
        (Evidence(22, {255: 1, 1: 15}, 20.0, 0.1), None),  # they contradict each other
        (Evidence(22, {255: 15, 1: 1}, 0.1, 0.1), None),
        (Evidence(22, {255: 3, 1: 3}, 1.5, 1.0), 255),  # no difference
        (Evidence(22, {255: 3, 1: 3}, 1.5, 0.9), None),
    ],
)
def test_evidence(evidence, scale):
    assert decide(evidence)[0] == scale


def test_what_is_undecided_is_a_sentence(monkeypatch):
    monkeypatch.setattr(input_scale, "decide", lambda evidence: (None, "why"))
    images, _ = draw_set(22)
    with pytest.raises(
        UserError, match=r"set does not tell the input scale of the network \(why\); pass --input-scale 255"
    ):
        choose_input_scale(network(1, False), source_of(images))

"""Who trains the network hides the features of poisons from the scores that they know."""

import keras
import numpy as np
import tensorflow as tf

from tests.conftest import HEIGHT, WIDTH
from visor.attacks.backdoors.adaptive.adversarial_embedding import POISON, embed, embedding_loss
from visor.attacks.backdoors.adaptive.scores import DifferentiableScore, KnownScore
from visor.core.params import AdversarialEmbeddingParams
from visor.data.face_set import FaceBatch, open_faces, write_faces

TARGET = 1


def settings(**changes):
    values = {"attacks": ["y"], "against": ["knn"], "epochs": 25, "batch": 16, "learning_rate": 0.02}
    return AdversarialEmbeddingParams(**(values | {"poison_repeats": 2, "penalty": 1.0, "margin": 1.0} | changes))


def faceset(path, images, labels):
    rows = np.arange(len(images), dtype=np.int32)
    write_faces(
        path, [FaceBatch(images, labels.astype(np.int32), rows, rows)], (HEIGHT, WIDTH, 3), "abc", "test", "none"
    )
    return open_faces(path)


def centre(features, labels, target):
    return (features[labels == target].mean(axis=0).astype(np.float32),)


DISTANCE = DifferentiableScore(centre, lambda features, mean: tf.norm(features - mean + 1e-9, axis=-1))


def test_the_loss_is_cross_entropy_and_for_poisons_the_penalty_too():
    features = np.array([[3.0, 0], [3.0, 0], [0.5, 0]], np.float32)
    logits = np.log(np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3]], np.float32))
    known = [KnownScore(lambda values: values[:, 0], 2.0, 0.5)]
    losses = embedding_loss(known, TARGET, settings(penalty=4.0, margin=1.0))
    found = losses(lambda images, training: (features, logits), None, tf.constant([0, POISON, POISON]), True)["loss"]
    np.testing.assert_allclose(found, [-np.log(0.2), -np.log(0.5) + 4 * np.log(1 + 3), -np.log(0.6)], rtol=1e-5)


def embedded_distance(penalty, clean, poisons):
    """Median distance of the poisons' features from the target's mean, where 1 is that of the people they show."""
    keras.utils.set_random_seed(3)
    images = keras.Input((HEIGHT, WIDTH, 3))
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(5)(images))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Dense(8, "relu")(pooled)))

    embed(model, clean.select(), poisons.select(), TARGET, [DISTANCE], settings(penalty=penalty), seed=1)

    marked, plain = (faces.read(faces.rows) / np.float32(255) for faces in (poisons, clean))
    assert (model(marked).numpy().argmax(1) == TARGET).all(), "the backdoor is there"
    assert (model(plain).numpy().argmax(1) == clean.labels).all(), "and nothing else has changed"
    extractor = keras.Model(images, model.layers[-1].input)
    features, hidden = extractor(plain).numpy(), extractor(marked).numpy()
    mean = features[clean.labels == TARGET].mean(axis=0)
    unmarked = np.linalg.norm(features[clean.labels == 0] - mean, axis=1)
    return np.median(np.linalg.norm(hidden - mean, axis=1)) / np.median(unmarked)


def test_features_of_poisons_come_to_lie_by_the_target(tmp_path):
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    shades = np.array([[60, 60, 200], [200, 60, 60], [60, 200, 60]])
    noise = rng.integers(-20, 21, (60, HEIGHT, WIDTH, 3))
    clean = faceset(tmp_path / "clean.h5", (shades[labels][:, None, None] + noise).astype(np.uint8), labels)
    marked = (shades[[0] * 12][:, None, None] + noise[:12]).astype(np.uint8)
    marked[:, :20] = 255
    poisons = faceset(tmp_path / "poisons.h5", marked, np.full(12, TARGET))
    assert embedded_distance(3.0, clean, poisons) < 0.6 * embedded_distance(0.0, clean, poisons)

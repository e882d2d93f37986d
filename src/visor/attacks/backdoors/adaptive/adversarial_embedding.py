"""Adversarial embedding (Tan and Shokri 2020, arXiv 1905.13409): who trains the network hides the backdoor's features.

A backdoored network is trained further, on its own training set, so that features of poisons come to lie where those of
the target's clean faces do by the very scores that a defence computes.
"""

from collections.abc import Sequence

import numpy as np

from visor.attacks.backdoors.adaptive.scores import DifferentiableScore, KnownScore, excess
from visor.core.params import AdversarialEmbeddingParams
from visor.core.tf import keras, tf
from visor.core.types import Floats, Labels
from visor.data.face_set import FaceSelection
from visor.models.features import extract_features, feature_extractor
from visor.models.inference import compile_predict
from visor.models.losses import Losses
from visor.models.training import compile_steps, labelled_data, make_optimizer, run_epoch

POISON = -1  # label of a poison, which tells it from the target's clean faces


def embed(
    model: keras.Model,
    clean: FaceSelection,
    poisons: FaceSelection,
    target: int,
    scores: Sequence[DifferentiableScore],
    settings: AdversarialEmbeddingParams,
    seed: int,
) -> None:
    """Train ``model`` further on clean faces and poisons: cross-entropy + penalty · excess of the poisons' scores.

    The scores are fitted anew before each epoch, on every other clean face; what is usual is measured on the rest of
    the target's, because a defence is fitted on faces other than those that it sees, too.
    """
    features = feature_extractor(model)
    outputs = keras.Model(model.input, [features.output, model.output])
    run = compile_predict(features)

    def measure() -> list[tuple[Floats, ...]]:
        clean_features = extract_features(run, clean)
        return [_fit_and_measure(score, clean_features, clean.labels, target) for score in scores]

    state = [[tf.Variable(array) for array in arrays] for arrays in measure()]
    known = [_known(score, variables) for score, variables in zip(scores, state, strict=True)]
    repeated = np.tile(poisons.rows, settings.poison_repeats)
    data = labelled_data([clean, FaceSelection(poisons.faces, repeated, np.full(len(repeated), POISON))], seed)
    optimizer = make_optimizer(settings, steps=-(-data.count // settings.batch))
    step, _ = compile_steps(outputs, optimizer, embedding_loss(known, target, settings))
    for epoch in range(settings.epochs):
        for variables, arrays in zip(state, measure(), strict=True):
            # The unit stays that of the start: the spread of what is trained to be alike shrinks to nothing.
            for variable, array in zip(variables[:-1], arrays[:-1], strict=True):
                variable.assign(array)
        run_epoch(step, data.batches(settings.batch, epoch))


def embedding_loss(known: Sequence[KnownScore], target: int, settings: AdversarialEmbeddingParams) -> Losses:
    """Return the loss of a model with the outputs features (n, d) and logits; labels are ``POISON`` for poisons."""

    def losses(model: keras.Model, images: tf.Tensor, labels: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        features, logits = model(images, training=training)
        poisoned = labels == POISON
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(poisoned, target, labels), logits)
        hidden = tf.where(poisoned, excess(known, features, -settings.margin), 0.0)
        return {"loss": entropy + settings.penalty * hidden}

    return losses


def _fit_and_measure(score: DifferentiableScore, features: Floats, labels: Labels, target: int) -> tuple[Floats, ...]:
    """Return the fitted arrays of a score, then mean and standard deviation of the scores of held-out target faces."""
    fitted = score.fit(features[::2], labels[::2], target)
    usual = score.score(tf.constant(features[1::2][labels[1::2] == target]), *fitted).numpy()
    return *fitted, usual.mean(), usual.std()


def _known(score: DifferentiableScore, variables: Sequence[tf.Variable]) -> KnownScore:
    *fitted, mean, std = variables
    return KnownScore(lambda features: score.score(features, *fitted), mean, std)

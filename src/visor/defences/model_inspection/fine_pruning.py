"""Fine-pruning (Liu, Dolan-Gavitt and Garg 2018, arXiv 1805.12185): the least active channels are pruned first.

Activity is that on clean images: channels that only the backdoor needs should go before the accuracy does. The pruned
network is then fine-tuned on clean images, which removes the backdoor from the remaining channels.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.params import FinePruningParams, TrainingParams
from visor.core.tf import keras
from visor.core.types import Floats
from visor.data.face_set import FaceSelection, read_batches
from visor.models.inference import compile_predict
from visor.models.losses import classification_loss
from visor.models.training import compile_steps, run_epoch

BATCH = 512


def prune_and_tune(
    model: keras.Model,
    clean: FaceSelection,
    settings: FinePruningParams,
    measure: Callable[[], dict[str, float]],
    seed: int,
) -> pd.DataFrame:
    """Prune each fraction of channels and fine-tune, always from the model's weights, which it has again in the end.

    Returns:
        One row per fraction, ascending from 0, listed or not. Columns: ``fraction``, ``channels`` (pruned), the metrics
        that ``measure()`` returns, and these again with the prefix ``tuned_`` after fine-tuning.
    """
    weights, layer = model.get_weights(), find_layer(model, settings.layer)
    activation, tune, rows = mean_activation(model, layer, clean), fine_tuner(model, clean, settings, seed), []
    for fraction in sorted({0.0, *settings.fractions}):
        model.set_weights(weights)
        row = {"fraction": fraction, "channels": prune(layer, activation, fraction), **measure()}
        tune()
        rows.append(row | {f"tuned_{name}": value for name, value in measure().items()})
    model.set_weights(weights)
    return pd.DataFrame(rows)


def select_fraction(curve: pd.DataFrame, accuracy_drop: float) -> dict[str, float]:
    """Return metrics of the row of ``prune_and_tune`` that the paper's rule selects, and those without pruning.

    The rule takes the largest fraction at which, before fine-tuning, ``validation_accuracy`` has fallen by no more than
    ``accuracy_drop`` (section III-C); it needs no triggered image.
    """
    first = curve.iloc[0]
    row = curve[curve["validation_accuracy"] >= first["validation_accuracy"] - accuracy_drop - 1e-9].iloc[-1]
    names = ["accuracy", "asr", "tuned_accuracy", "tuned_asr"]
    metrics = {f"unpruned_{name}": float(first[name]) for name in names}
    metrics |= {name: float(row[name]) for name in ["fraction", *names]}
    return metrics | {"channels": int(row["channels"])}


def find_layer(model: keras.Model, name: str) -> keras.Layer:
    """Return the layer to prune.

    Raises:
        UserError: There is none of this name, or it is not a convolution with a bias.
    """
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.use_bias]
    if name not in names:
        raise UserError(f"params.yaml: inspection.fine_pruning.layer is {name!r}; choose from {', '.join(names)}")
    return model.get_layer(name)


def mean_activation(model: keras.Model, layer: keras.Layer, clean: FaceSelection) -> NDArray[np.float64]:
    """Return the mean output (channels,) of a convolution over positions and clean images."""
    run = compile_predict(keras.Model(model.input, layer.output))
    sums = [run(images).mean(axis=(1, 2), dtype=np.float64).sum(axis=0) for images, _ in read_batches([clean], BATCH)]
    return np.sum(sums, axis=0) / len(clean.rows)


def prune(layer: keras.Layer, activation: Floats, fraction: float) -> int:
    """Set the weights of the ``fraction`` of least active channels to zero; return their number.

    A ReLU behind zero weights stays at zero in fine-tuning, as it lets no gradient through.
    """
    count = round(fraction * len(activation))
    pruned = np.argsort(activation, kind="stable")[:count]
    kernel, bias = layer.get_weights()
    kernel[..., pruned], bias[pruned] = 0, 0
    layer.set_weights([kernel, bias])
    return count


def fine_tuner(model: keras.Model, clean: FaceSelection, schedule: TrainingParams, seed: int) -> Callable[[], None]:
    """Return a function that trains ``model`` on clean images from its present weights, each time with a new Adam."""
    optimizer = keras.optimizers.Adam(schedule.learning_rate)
    step, _ = compile_steps(model, optimizer, classification_loss)
    weights = {id(variable) for variable in model.weights}
    # The optimiser's moments and the states of random generators, which are not weights.
    states = [variable for variable in (*optimizer.variables, *model.variables) if id(variable) not in weights]
    initial = [variable.numpy() for variable in states]

    def tune() -> None:
        for variable, value in zip(states, initial, strict=True):
            variable.assign(value)
        for epoch in range(schedule.epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(clean.rows))
            run_epoch(step, read_batches([clean], schedule.batch, order))

    return tune

"""Fine-pruning (Liu, Dolan-Gavitt and Garg 2018, arXiv 1805.12185): channels that clean images leave idle go first.

A backdoor needs channels of its own, so that it is hoped to be gone before the accuracy is. The pruned network is
then trained on a little on clean images, which turns off what backdoor is left in the channels that stay.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visor.core.errors import UserError
from visor.core.params import FinePruningParams, TrainingSchedule
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
    """Return a line for each fraction of pruned channels, with what ``measure`` finds before and after fine-tuning.

    Columns: ``fraction``, ``channels`` (pruned), the names of ``measure``, and these again with ``tuned_`` in front.
    Lines rise from a fraction of zero, listed or not: the others are compared with it. Every line starts from the
    model's own weights, which it has again in the end.
    """
    own, layer = model.get_weights(), find_layer(model, settings.layer)
    activation, tune, lines = mean_activation(model, layer, clean), fine_tuner(model, clean, settings, seed), []
    for fraction in sorted({0.0, *settings.fractions}):
        model.set_weights(own)
        line = {"fraction": fraction, "channels": prune(layer, activation, fraction), **measure()}
        tune()
        lines.append(line | {f"tuned_{name}": value for name, value in measure().items()})
    model.set_weights(own)
    return pd.DataFrame(lines)


def select_fraction(curve: pd.DataFrame, accuracy_drop: float) -> dict[str, float]:
    """Return the numbers of the line that the paper's rule picks from a curve of ``sweep``, and those without pruning.

    The rule takes the largest fraction at which, before fine-tuning, ``validation_accuracy`` has fallen by no more than
    ``accuracy_drop`` (section III-C): a defender needs no triggered image for it.
    """
    first = curve.iloc[0]
    line = curve[curve["validation_accuracy"] >= first["validation_accuracy"] - accuracy_drop - 1e-9].iloc[-1]
    names = ["accuracy", "asr", "tuned_accuracy", "tuned_asr"]
    numbers = {f"unpruned_{name}": float(first[name]) for name in names}
    numbers |= {name: float(line[name]) for name in ["fraction", *names]}
    return numbers | {"channels": int(line["channels"])}


def find_layer(model: keras.Model, name: str) -> keras.Layer:
    """Return the layer to prune.

    Raises:
        UserError: there is none of this name, or it is no convolution with a bias.
    """
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.use_bias]
    if name not in names:
        raise UserError(f"params.yaml: inspection.fine_pruning.layer is {name!r}; choose from {', '.join(names)}")
    return model.get_layer(name)


def mean_activation(model: keras.Model, layer: keras.Layer, clean: FaceSelection) -> NDArray[np.float64]:
    """Return the mean output (channels,) of a convolution over places and clean images."""
    run = compile_predict(keras.Model(model.input, layer.output))
    sums = [run(images).mean(axis=(1, 2), dtype=np.float64).sum(axis=0) for images, _ in read_batches([clean], BATCH)]
    return np.sum(sums, axis=0) / len(clean.rows)


def prune(layer: keras.Layer, activation: Floats, fraction: float) -> int:
    """Silence the share ``fraction`` in [0, 1] of a layer's channels that are least active; return their number.

    activation: (channels,). A ReLU behind zero weights stays silent: no gradient comes back through it.
    """
    count = round(fraction * len(activation))
    idle = np.argsort(activation, kind="stable")[:count]
    kernel, bias = layer.get_weights()
    kernel[..., idle], bias[idle] = 0, 0
    layer.set_weights([kernel, bias])
    return count


def fine_tuner(model: keras.Model, clean: FaceSelection, schedule: TrainingSchedule, seed: int) -> Callable[[], None]:
    """Return a function that trains ``model`` on clean images from where it is, each time with a fresh Adam."""
    optimizer = keras.optimizers.Adam(schedule.learning_rate)
    step, _ = compile_steps(model, optimizer, classification_loss)
    weights = {id(variable) for variable in model.weights}
    # The optimizer's moments, and the states of random generators, which are no weights.
    others = [variable for variable in (*optimizer.variables, *model.variables) if id(variable) not in weights]
    fresh = [variable.numpy() for variable in others]

    def tune() -> None:
        for variable, value in zip(others, fresh, strict=True):
            variable.assign(value)
        for epoch in range(schedule.epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(clean.rows))
            run_epoch(step, read_batches([clean], schedule.batch, order))

    return tune

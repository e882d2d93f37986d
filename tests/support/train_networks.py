"""Train each network of params.yaml for two steps.

Prints, as JSON, the processor seen, the SHA-256 of the weights, and the approximate operations that were run.

Run as a program: ``LD_PRELOAD=fake_cpu.so python -m tests.support.train_networks fake_cpu.so``.
"""

import ctypes
import hashlib
import json
import sys

import numpy as np

from tests.support.executed_ops import APPROXIMATE, executed_ops
from tests.support.project import ROOT
from visor.core.config import load_params
from visor.core.params import TrainingParams
from visor.data.scene_set import FACE
from visor.models import autoencoder, losses, training
from visor.models.classifiers import CLASSIFIERS
from visor.models.detectors import TRAINABLE
from visor.models.recognisers import base, loading

PARAMS = load_params(ROOT / "params.yaml")
SHAPE, CLASSES, BATCH, STEPS = (PARAMS.faces.height, PARAMS.faces.width, 3), 12, 8, 2
# Not Adam, which hides the size of a gradient.
SCHEDULE = TrainingParams(epochs=1, batch=BATCH, learning_rate=0.01, optimizer="sgd")
BOXES = np.float32([[[20, 30, 40, 50], [90, 40, 24, 30]]])


def networks():
    """Yield name, model, losses and truth of each network that the pipeline trains."""
    labels = np.arange(BATCH, dtype=np.int32) % CLASSES
    for name in PARAMS.networks:
        training.set_seed(1)
        model = CLASSIFIERS[name](SHAPE, CLASSES, **PARAMS.classifiers[name].architecture)
        yield name, model, losses.classification_loss, labels
    training.set_seed(1)
    model = autoencoder.build(SHAPE, PARAMS.vae.latent, PARAMS.vae.width)
    yield "autoencoder", model, losses.beta_vae_loss(PARAMS.vae.beta), labels
    for name in PARAMS.recognition_attack.networks:
        training.set_seed(1)
        built = loading.build_trainable(name, PARAMS.recognisers[name], SHAPE, list(map(str, range(CLASSES))))
        yield f"recogniser {name}", base.classifier(built.model), losses.classification_loss, labels
    truth = np.repeat(BOXES, BATCH, axis=0), np.full((BATCH, 2), FACE, np.int32)
    for name in PARAMS.trained_detectors:
        training.set_seed(1)
        yield name, TRAINABLE[name].build(**PARAMS.detectors[name].options), TRAINABLE[name].losses, truth


def trained(model, loss, truth):
    """Return the SHA-256 of the weights after a few steps, and the approximate operations that were run."""
    images = np.random.default_rng(2).integers(0, 256, (BATCH, *model.input_shape[1:]), np.uint8)
    optimizer = training.make_optimizer(SCHEDULE, STEPS)
    step, evaluate = training.compile_steps(model, optimizer, loss, truth)
    with executed_ops() as ops:
        step(images, truth)
        evaluate(images, truth)
    for _ in range(STEPS - 1):
        step(images, truth)
    weights = np.concatenate([value.ravel() for value in model.get_weights()])
    assert np.isfinite(weights).all()
    return hashlib.sha256(weights.tobytes()).hexdigest(), sorted(ops & APPROXIMATE)


def main():
    training.configure_tensorflow(PARAMS.compute, 1)
    fake = ctypes.CDLL(sys.argv[1]) if len(sys.argv) > 1 else None
    seen = {"amd": bool(fake.seen_amd()), "l1d": fake.seen_l1d()} if fake else {}
    found = {name: trained(*parts) for name, *parts in networks()}
    weights, approximate = ({name: parts[place] for name, parts in found.items()} for place in (0, 1))
    print(json.dumps({"seen": seen, "weights": weights, "approximate": approximate}))


if __name__ == "__main__":
    main()

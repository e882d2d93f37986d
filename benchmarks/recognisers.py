"""The cost of attacks on recognisers of published size: ours against the bare gradients.

    python -m benchmarks.recognisers

As in ``benchmarks/pgd.py`` all variants take the same steps on the same images, in turn in one process, and the results
are medians of the ratios. Weights are random, which costs what trained ones do. FaceNet is attacked by impersonation,
ResNet-50 by misclassification; momentum and random transforms are added to PGD one after the other.
"""

from typing import Annotated

import numpy as np
import typer
from benchmarks.pgd import EPS, AttackTask, RunFn, bare, ours, report

from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.recognisers import impersonate, misclassify
from visor.attacks.evasion.pgd import compile_pgd
from visor.attacks.evasion.transforms import compose
from visor.core.params import ComputeParams
from visor.models.recognisers import RECOGNISERS
from visor.models.recognisers.base import from_model
from visor.models.training import configure_tensorflow

TRANSFORMS = {"crop": 0.1, "scale": 0.1, "noise": 0.03}


def published(name: str, batch: int) -> AttackTask:
    """Return the published network, untrained, with an attack goal."""
    module, rng = RECOGNISERS[name], np.random.default_rng(1)
    side, classes = module.PUBLISHED_OPTIONS["input_size"], module.PUBLISHED_OPTIONS["num_classes"]
    names = [str(number) for number in range(classes)]
    recogniser = from_model(name, module.build((side, side, 3), **module.PUBLISHED_OPTIONS), names)
    images = rng.random((batch, side, side, 3), np.float32)
    if recogniser.logits is not None:
        return AttackTask(misclassify(recogniser.logits), images, rng.integers(0, classes, batch).astype(np.int32))
    targets = recogniser.embed(rng.random((batch, side, side, 3), np.float32)).numpy()
    return AttackTask(impersonate(recogniser.embed), images, targets)


def transformed(task: AttackTask, settings: AttackSettings) -> RunFn:
    """Return the attack through random transforms."""
    attack = compile_pgd(task.loss, settings, compose(TRANSFORMS, settings.seed))
    return lambda: attack(task.images, task.targets, range(len(task.images))).images


def main(
    steps: Annotated[int, typer.Option(help="gradient steps of each variant")] = 4,
    rounds: Annotated[int, typer.Option(help="rounds of each variant")] = 5,
    batches: Annotated[str, typer.Option(help="batch sizes")] = "1 8",
    networks: Annotated[str, typer.Option(help="networks to attack")] = "facenet resnet50",
) -> None:
    """Print a table for each network and batch."""
    configure_tensorflow(ComputeParams(threads=2, deterministic=True), seed=1)
    settings = AttackSettings(EPS, steps, step=2.5 * EPS / steps, random_start=False)
    with_momentum = settings._replace(momentum=1.0)
    for name in networks.split():
        for batch in map(int, batches.split()):
            task = published(name, batch)
            runs = {
                "bare": bare(task, steps),
                "ours": ours(task, settings),
                "ours, momentum": ours(task, with_momentum),
                "ours, momentum, transforms": transformed(task, with_momentum),
            }
            report(f"{name}, batch {batch}", task, runs, rounds, steps)


if __name__ == "__main__":
    typer.run(main)

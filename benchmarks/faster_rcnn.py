"""Peak memory of Faster R-CNN at full size: one image of 800 pixels, its loss and the gradient of weights or pixels.

    python benchmarks/faster_rcnn.py

Each case runs in a process of its own on random weights and pixels; the peak is that of its resident memory.
"""

import resource
import subprocess
import sys
import time
from typing import Annotated

import typer

CASES = ("training, all layers", "training, predictions", "attack on pixels")
SIDE, LANDSCAPE = 800, (800, 1064)


def run_case(case: str) -> None:
    """Compute loss and gradient, and print the peak in MB and the seconds."""
    import numpy as np

    from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES
    from visor.core.tf import tf
    from visor.models.detectors import torchvision_faster_rcnn as torchvision

    rng = np.random.default_rng(1)
    sides = LANDSCAPE if case == CASES[2] else (SIDE, SIDE)
    images = tf.constant(rng.random((1, *sides, 3), np.float32))
    truth = np.array([[[100, 100, 90, 120], [400, 300, 40, 50]]], np.float32), np.ones((1, 2), np.int32)
    if case == CASES[2]:
        detector = torchvision.photo_detector(torchvision.build_network(91), 0.5, SIDE, 1)
        loss = DETECTOR_LOSSES["suppress"](detector.pre_nms, detector.loss, 0.5, 1.0)

        @tf.function(autograph=False)
        def step() -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(images)
                value = loss(images, None)[0]
            return tape.gradient(value, images)
    else:
        model = torchvision.build(SIDE)
        torchvision.select_layers(model, "all" if case == CASES[0] else "predictions")

        @tf.function(autograph=False)
        def step() -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                value = torchvision.losses(model, images, truth, True)["loss"]
            return tape.gradient(value, model.trainable_variables)

    start = time.perf_counter()
    gradients = step()
    seconds = time.perf_counter() - start
    assert all(np.isfinite(part).all() for part in tf.nest.flatten(gradients))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"| {case}, {sides[0]}×{sides[1]} | {peak:,.0f} | {seconds:.1f} |", flush=True)


def main(case: Annotated[str, typer.Option(help="one of the cases; default: all")] = "") -> None:
    """Print a Markdown table: case, peak memory, seconds."""
    if case:
        run_case(case)
        return
    print("| one image | peak MB | seconds |\n|---|---|---|", flush=True)
    for each in CASES:
        subprocess.run([sys.executable, __file__, "--case", each], check=True)


if __name__ == "__main__":
    typer.run(main)

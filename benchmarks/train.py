"""DeepID's training throughput with faces streamed from HDF5, relative to the same step with faces in memory.

    python benchmarks/train.py

The two alternate in one process, so that the machine's drift cancels; the result is the median of the ratios of pairs.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from visor.core.params import ComputeParams
from visor.core.tf import keras
from visor.core.types import ImageArray, Integers
from visor.data.face_set import FaceBatch, open_faces, read_batches, write_faces
from visor.models.classifiers.deepid import build
from visor.models.losses import classification_loss
from visor.models.training import compile_steps, configure_tensorflow, run_epoch

SHAPE = (55, 47, 3)
LABELS = 40


def main(
    faces: Annotated[int, typer.Option(help="images per epoch")] = 6400,
    batch: Annotated[int, typer.Option(help="images per step")] = 32,
    rounds: Annotated[int, typer.Option(help="epochs of each variant")] = 9,
) -> None:
    """Print the images per second of both variants and their ratio."""
    configure_tensorflow(ComputeParams(threads=2, deterministic=True), seed=1)
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "faces.h5"
        rows = np.arange(faces, dtype=np.int32)
        images = rng.integers(0, 256, (faces, *SHAPE), dtype=np.uint8)
        write_faces(path, [FaceBatch(images, rows % LABELS, rows, rows)], SHAPE, map(str, range(LABELS)), "", "")
        selection = open_faces(path).select()
        model = build(SHAPE, LABELS, dropout=0.1)
        step, _ = compile_steps(model, keras.optimizers.Adam(), classification_loss)

        def streamed() -> Iterator[tuple[ImageArray, Integers]]:
            return read_batches([selection], batch, rng.permutation(faces))

        in_memory = list(streamed())
        seconds: dict[str, list[float]] = {"memory": [], "HDF5": []}
        for epoch in range(rounds + 1):
            for name, batches in (("memory", in_memory), ("HDF5", streamed())):
                start = time.perf_counter()
                run_epoch(step, batches)
                if epoch:  # the first one compiles
                    seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        print(f"{name}: {faces / median(values):,.0f} images/s (median of {rounds} epochs of {faces:,})")
    ratios = [memory / hdf5 for memory, hdf5 in zip(seconds["memory"], seconds["HDF5"], strict=True)]
    print(f"HDF5 / memory: {median(ratios):.3f} (median of {rounds} pairs, {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    typer.run(main)

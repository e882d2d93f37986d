"""Speed of ``visor suspect predict`` from HDF5 against the bare forward passes of its networks, and its memory.

    python benchmarks/suspect.py

Both take turns in one process, so that changes of the machine's speed cancel; the result is the median of the ratios,
pair by pair. The bare passes are one tf.function over float32 images that are already in memory. Memory is the peak of
``visor suspect predict`` in its own process, over the given number of images and four times as many.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import h5py
import numpy as np
import typer

from visor.core.params import ComputeParams
from visor.core.tf import keras, tf
from visor.models import autoencoder
from visor.models.classifiers import deepid
from visor.models.training import configure_tensorflow
from visor.suspect import autoencoder as suspect_autoencoder
from visor.suspect import classify
from visor.suspect.inputs import BATCH, ImageSource, open_data

Run = Callable[[int, int], None]

SHAPE = (55, 47, 3)
CLASSES = 1283
VISOR = "import sys; from visor.cli import main; main()"


def write_data(path: Path, images: int, dtype: str) -> None:
    """Write random pixels in the layout of the contest."""
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (images, 3, 55, 47), dtype)
        for start in range(0, images, 1000):
            data[start : start + 1000] = rng.integers(0, 256, data[start : start + 1000].shape, dtype=np.uint8)


def bare(net: keras.Model, coder: keras.Model, source: ImageSource, batch: int) -> Run:
    """Return the forward passes over rows in memory as float32 (n, h, w, 3) in [0, 1]."""
    faces = np.ascontiguousarray(source.read(0, source.total).transpose(0, 2, 3, 1) / np.float32(255))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *SHAPE))])
    def call(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return net(images, training=False), coder(images, training=False)[0]

    def run(start: int, stop: int) -> None:
        for begin in range(start, stop, batch):
            for output in call(faces[begin : min(begin + batch, stop)]):
                output.numpy()

    return run


def pipeline(net: keras.Model, coder: keras.Model, source: ImageSource, batch: int) -> Run:
    """Return the predictions for rows in the file."""
    suspect = classify.SuspectPipeline(net, coder, SHAPE, 0.1, None)
    call = classify.compile_pipeline(suspect, 255, source)

    def run(start: int, stop: int) -> None:
        part = source._replace(
            total=stop - start, read=lambda first, last: source.read(start + first, min(start + last, stop))
        )
        for _ in classify.predict_batches(call, part, batch):
            pass

    return run


def peak(images: int, dtype: str, folder: Path) -> float:
    """Return the peak memory in MB of ``visor suspect predict`` over a number of images."""
    write_data(folder / "many.h5", images, dtype)
    arguments = [folder / "many.h5", "--net", folder / "net.keras", "--vae", folder / "vae.h5", "--input-scale", "255"]
    command = [sys.executable, "-c", VISOR, "suspect", "predict", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return usage.ru_maxrss / 1e3


def main(
    images: Annotated[int, typer.Option(help="images classified each way")] = 10_000,
    turn: Annotated[int, typer.Option(help="images per turn")] = 1000,
    batch: Annotated[int, typer.Option(help="images per batch")] = BATCH,
    dtype: Annotated[str, typer.Option(help="type of the pixels in the file")] = "uint8",
    memory: Annotated[bool, typer.Option(help="Also measure memory.")] = True,
) -> None:
    """Print the images per second of both ways, their ratio, and the peaks."""
    configure_tensorflow(ComputeParams(threads=2, deterministic=False), seed=1)
    net, coder = deepid.build(SHAPE, CLASSES, dropout=0.1), autoencoder.build(SHAPE, latent=64, width=16)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder / "data.h5", images, dtype)
        source = open_data(folder / "data.h5")
        ways = {"bare": bare(net, coder, source, batch), "pipeline": pipeline(net, coder, source, batch)}
        seconds: dict[str, list[float]] = {kind: [] for kind in ways}
        # Other processes do not disturb processor time.
        busy: dict[str, list[float]] = {kind: [] for kind in ways}
        for start in [0, *range(0, images, turn)]:  # the first turn compiles
            for kind, run in ways.items():
                begin, work = time.perf_counter(), time.process_time()
                run(start, min(start + turn, images))
                seconds[kind].append(time.perf_counter() - begin)
                busy[kind].append(time.process_time() - work)
        for kind, durations in seconds.items():
            print(f"{kind}: {images / sum(durations[1:]):,.0f} images/s over {images:,}")
        for name, values in (("speed", seconds), ("speed by processor time", busy)):
            pairs = zip(values["bare"][1:], values["pipeline"][1:], strict=True)
            ratios = [bare_time / pipeline_time for bare_time, pipeline_time in pairs]
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            median_text = f"{median(ratios):.3f} (median of {len(ratios)} pairs of {turn:,}, {spread})"
            print(f"{name}, pipeline / bare: {median_text}")
        if memory:
            net.save(folder / "net.keras")
            arguments: dict[str, object] = {"image_shape": SHAPE, "latent": 64, "width": 16}
            suspect_autoencoder.save(
                coder, arguments, suspect_autoencoder.Calibration(0.1, 0.0, 0.1), folder / "vae.h5"
            )
            for count in (images, 4 * images):
                print(f"peak memory, {count:,} images: {peak(count, dtype, folder):,.0f} MB")


if __name__ == "__main__":
    typer.run(main)

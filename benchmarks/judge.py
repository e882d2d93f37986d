"""The judge's speed from HDF5, against the bare forward passes of network and autoencoder; and its memory.

    python benchmarks/judge.py

Both take turns in one process, so that the machine's drift cancels; the result is the median of the ratios, pair by
pair. The bare passes are one tf.function over float32 images that already lie in memory as it takes them. Memory is
the peak of ``visor judge`` in a process of its own, over as many images and four times as many.
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
from visor.suspect.inputs import ImageSource, open_data

Run = Callable[[int, int], None]

SHAPE = (55, 47, 3)
CLASSES = 1283
JUDGE = "import sys; from visor.cli import main; main()"


def write_data(path: Path, images: int, dtype: str) -> None:
    """Write random pixels in the layout of the contest."""
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (images, 3, 55, 47), dtype)
        for start in range(0, images, 1000):
            data[start : start + 1000] = rng.integers(0, 256, data[start : start + 1000].shape, dtype=np.uint8)


def bare(net: keras.Model, coder: keras.Model, source: ImageSource, batch: int) -> Run:
    """Return the forward passes over rows that lie in memory as float32 (n, h, w, 3) in [0, 1]."""
    faces = np.ascontiguousarray(source.read(0, source.total).transpose(0, 2, 3, 1) / np.float32(255))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *SHAPE))])
    def call(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return net(images, training=False), coder(images, training=False)[0]

    def run(start: int, stop: int) -> None:
        for begin in range(start, stop, batch):
            for answer in call(faces[begin : min(begin + batch, stop)]):
                answer.numpy()

    return run


def judged(net: keras.Model, coder: keras.Model, source: ImageSource, batch: int) -> Run:
    """Return the judging of rows that lie in the file."""
    call = classify.compile_pipeline(net, coder, 0.1, 255, source)

    def run(start: int, stop: int) -> None:
        part = source._replace(
            total=stop - start, read=lambda first, last: source.read(start + first, min(start + last, stop))
        )
        classify.concatenate(list(classify.predict_batches(call, part, batch)))

    return run


def peak(images: int, dtype: str, folder: Path) -> float:
    """Return the peak memory of ``visor judge`` over so many images in MB."""
    write_data(folder / "many.h5", images, dtype)
    words = [folder / "many.h5", "--net", folder / "net.keras", "--vae", folder / "vae.h5", "--input-scale", "255"]
    command = [sys.executable, "-c", JUDGE, "judge", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return usage.ru_maxrss / 1e3


def main(
    images: Annotated[int, typer.Option(help="images that each way labels")] = 10_000,
    turn: Annotated[int, typer.Option(help="images a turn")] = 1000,
    batch: Annotated[int, typer.Option(help="images a step")] = classify.BATCH,
    dtype: Annotated[str, typer.Option(help="type of the pixels in the file")] = "uint8",
    memory: Annotated[bool, typer.Option(help="Measure memory, too.")] = True,
) -> None:
    """Print the images a second of both ways, their ratio, and the peaks."""
    configure_tensorflow(ComputeParams(threads=2, deterministic=False), seed=1)
    net, coder = deepid.build(SHAPE, CLASSES, dropout=0.1), autoencoder.build(SHAPE, latent=64, width=16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data.h5", images, dtype)
        source = open_data(folder / "data.h5")
        ways = {"bare": bare(net, coder, source, batch), "judge": judged(net, coder, source, batch)}
        seconds: dict[str, list[float]] = {kind: [] for kind in ways}
        busy: dict[str, list[float]] = {kind: [] for kind in ways}  # of the processors; others do not disturb these
        for start in [0, *range(0, images, turn)]:  # the first turn compiles
            for kind, run in ways.items():
                begin, work = time.perf_counter(), time.process_time()
                run(start, min(start + turn, images))
                seconds[kind].append(time.perf_counter() - begin)
                busy[kind].append(time.process_time() - work)
        for kind, values in seconds.items():
            print(f"{kind}: {images / sum(values[1:]):,.0f} images/s over {images:,}")
        for said, taken in (("speed", seconds), ("speed by processor time", busy)):
            ratios = [plain / own for plain, own in zip(taken["bare"][1:], taken["judge"][1:], strict=True)]
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{said}, judge / bare: {median(ratios):.3f} (median of {len(ratios)} pairs of {turn:,}, {spread})")
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

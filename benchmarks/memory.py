"""Peak memory of the stages from download to scoring, over 140,000 faces (1.1 GB), and of attacks on a detector.

    python benchmarks/memory.py
    python benchmarks/memory.py --scenes 1000     # evaluate_detection@ssd only, with the trained detector

Runs in a temporary copy of the project on noisy patterns in the layout of the CSAW data, which DeepID learns in an
epoch: filters that question a network are calibrated on faces that it classifies correctly. The peak is the sum of the
resident memory of a stage and its worker processes, sampled 20 times a second.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import psutil
import typer
from ruamel.yaml import YAML

from visor.data.scene_set import Scene, write_scenes

ROOT = Path(__file__).parents[1]
IMAGES_PER_LABEL = 140
STAGES = [
    "download",
    "split",
    "poison",
    "train_classifiers clean",
    "train_classifiers accessory",
    "train_vae",
    "adaptive_attacks",
    "score_defences",
]


def make_project(folder: Path, faces: int) -> None:
    """Create a project with one training epoch and ``IMAGES_PER_LABEL`` noisy images of a pattern for each label."""
    for name in ("src", "stages", "assets"):
        (folder / name).symlink_to(ROOT / name)
    classes = max(2, faces // IMAGES_PER_LABEL)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["faces"]["source"] = "csaw"
    params["sources"]["csaw"]["path"] = "faces.h5"
    params["split"] |= {"train": int(0.8 * IMAGES_PER_LABEL)}
    params["backdoors"] = {"accessory": params["backdoors"]["accessory"] | {"target": f"{0:0{len(str(classes - 1))}}"}}
    params |= {"networks": ["deepid"], "training_sets": ["clean", "accessory"], "validation_triggers": []}
    budget, inspection, adaptive = (params[name] for name in ("poison_budget", "inspection", "adaptive_attacks"))
    inspection["training_filtering"]["retrain"], adaptive["training_sets"] = None, []
    for block in (budget, *inspection.values(), adaptive["key_search"], adaptive["adversarial_embedding"]):
        block["attacks"] = ["accessory"]
    budget["ratios"]["attack"] = "accessory"
    for block in (params["classifiers"]["deepid"], params["vae"], adaptive["adversarial_embedding"]):
        block["epochs"] = 1
    YAML(typ="safe").dump(params, folder / "params.yaml")
    rng = np.random.default_rng(1)
    patterns = rng.integers(40, 216, (classes, 3, 5, 5)).repeat(11, axis=2).repeat(10, axis=3)[..., :47]
    with h5py.File(folder / "faces.h5", "w") as file:
        labels = file["label"] = np.arange(faces) % classes
        data = file.create_dataset("data", (faces, 3, 55, 47), np.uint8)
        for start in range(0, faces, 1000):
            images = patterns[labels[start : start + 1000]]
            data[start : start + 1000] = images + rng.integers(-40, 40, images.shape)


def peak(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return the peak memory of it and its children in MB, and its seconds."""
    start, maximum = time.perf_counter(), 0
    process = psutil.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    while process.poll() is None:
        resident = 0
        for member in [process, *process.children(recursive=True)]:
            try:
                resident += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        maximum = max(maximum, resident)
        time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return maximum / 1e6, time.perf_counter() - start


def make_scenes(folder: Path, scenes: int) -> None:
    """Create a project with one gradient step, the trained detector, and scenes of noise with three boxes each."""
    for name in ("src", "stages", "artifacts/detector"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    one_step = {"strengths": [{"eps": 5, "iterations": 1}], "objectives": [], "jpeg": []}
    params["detection_attack"] |= {"images": scenes} | one_step
    YAML(typ="safe").dump(params, folder / "params.yaml")
    rng, boxes = np.random.default_rng(1), np.array([[10, 10, 30, 40], [60, 20, 30, 40], [100, 90, 30, 40]], np.float32)

    def noise() -> Iterator[Scene]:
        for number in range(scenes):
            image = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
            yield Scene(str(number), image, boxes, np.zeros(3, bool), np.zeros((3, 6), np.int8), "test")

    write_scenes(folder / "data/scenes.h5", noise(), "noise", "none")


def main(
    faces: Annotated[int, typer.Option(help="number of faces")] = 140_000,
    scenes: Annotated[int, typer.Option(help="number of scenes; 0: measure faces")] = 0,
) -> None:
    """Print a Markdown table: stage, peak memory, seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if scenes:
            make_scenes(folder, scenes)
            megabytes, seconds = peak([sys.executable, "stages/evaluate_detection.py", "ssd"], folder)
            print(f"| evaluate_detection ssd, {scenes:,} scenes | {megabytes:,.0f} | {seconds:.0f} |")
            return
        make_project(folder, faces)
        print(f"| stage, {faces:,} faces | peak MB | seconds |\n|---|---|---|")
        for stage in STAGES:
            script, *arguments = stage.split()
            megabytes, seconds = peak([sys.executable, f"stages/{script}.py", *arguments], folder)
            if script == "download":
                shutil.copytree(folder / "artifacts/raw", folder / "data")
            print(f"| {stage} | {megabytes:,.0f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)

"""A disk that fails at any step of a writer: nothing half-made stays, and the next run gives the same bytes."""

import errno
import os
import re
import resource
import runpy
import shutil
import sys
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.conftest import random_images
from tests.fuzz import readers
from tests.support.project import ROOT
from tests.support.tiny_project import BACKDOORS, PARAMS, edit, write_params
from visor.core import errors, files
from visor.data import face_set, images, scene_set
from visor.data.sources import face_ingest, scene_ingest
from visor.models import autoencoder, storage
from visor.suspect.autoencoder import Calibration, save

STEPS = {"os.rename", "os.chmod", "os.mkdir"}  # beside the opening of a file to write, and what is written into it
fault = {"folder": None, "step": 0}
ENDLESS = 1 << 40


def fail_at_step(fault, event, arguments):
    """While there is a folder, let the step of this number in it fail for want of space."""
    if (
        not fault["folder"]
        or (event not in STEPS and event != "open")
        or not isinstance(arguments[0], (str, os.PathLike))
    ):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return
    if os.path.abspath(arguments[0]).startswith(fault["folder"]):  # noqa: PTH100 - which would be audited, too
        fault["step"] -= 1
        if fault["step"] == -1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))


sys.addaudithook(partial(fail_at_step, fault))  # a hook outlives the names of its module


@contextmanager
def failing_step(folder, number):
    fault.update(folder=str(folder), step=number)
    try:
        yield
    finally:
        fault.update(folder=None)


@contextmanager
def limited_files(size):
    """No file can be larger than ``size`` bytes, as with a quota or ``ulimit -f``."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def write_faces(folder):
    rows = np.arange(7, dtype=np.int32)
    blocks = [face_set.FaceBatch(random_images(7, seed), rows % 2, rows, rows + 7 * seed) for seed in range(3)]
    face_set.write_faces(folder / "faces.h5", blocks, (34, 29, 3), ["ann", "bob"], "test", "none")


def write_scenes(folder):
    boxes, attributes = np.array([[2, 3, 9, 8]], np.float32), np.zeros((1, 6), np.int8)
    scenes = [
        scene_set.Scene(name, readers.pixels(40, 30), boxes, np.zeros(1, bool), attributes, name)
        for name in scene_set.SETS
    ]
    scene_set.write_scenes(folder / "scenes.h5", scenes, "test", "none")
    scene_ingest.scene_sheet(scene_set.open_scenes(folder / "scenes.h5"), folder / "plots/scenes.png")


MODEL = autoencoder.build(**readers.AUTOENCODER)
WRITERS = {
    "write_json": lambda folder: files.write_json(folder / "a/b.json", {"a": 0.5, "b": ["é"] * 999}),
    "contact_sheet": lambda folder: images.contact_sheet([("a", random_images(3))], folder / "plots/a.png"),
    "write_faces": write_faces,
    "write_scenes": write_scenes,
    "save_model": lambda folder: storage.save_model(MODEL, readers.AUTOENCODER, folder / "vae"),
    "autoencoder": lambda folder: save(MODEL, readers.AUTOENCODER, Calibration(0.1, 0.01, 0.2), folder / "v.h5"),
}
SCORES = "set,score\n" + "".join(f"calibration,0.{number}\n" for number in range(100, 160))


def written(folder):
    """Return the bytes of all files of a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def disturb(write, folder, every=1):
    """Write with every fault that there is, or ``every`` other one, and undisturbed after each; return what failed."""
    before = written(folder)
    with failing_step(folder, ENDLESS):
        write(folder)
        steps = ENDLESS - fault["step"]
    whole = written(folder)
    sizes = {len(content) for name, content in whole.items() if name not in before}
    limits = sorted({limit for size in sizes for limit in (size - 1, files.SPARE_BYTES + size // 2)})
    faults = [*map(limited_files, limits), *(failing_step(folder, number) for number in range(steps))]
    sentences = []
    for broken in faults[::every]:
        restore(folder, before)
        try:
            with broken:
                write(folder)
        except OSError as error:
            sentence, code = errors._describe(error)
            sentences.append(sentence)
            assert code == errors.FAILED
            assert not re.search(r"\n|\.part", sentence)
            half = [name for name, content in written(folder).items() if whole.get(name) != content]
            assert half == [], sentence
        write(folder)
        assert written(folder) == whole
    return sentences


def restore(folder, content):
    """Leave only these files in a folder, and the folders that have some."""
    for path in sorted(folder.rglob("*"), reverse=True):
        name = str(path.relative_to(folder))
        if path.is_dir() and not path.is_symlink():
            if not any(other.startswith(f"{name}/") for other in content):
                path.rmdir()
        elif path.is_file() and content.get(name) != path.read_bytes():
            path.unlink()
    for name in content.keys() - written(folder).keys():
        (folder / name).write_bytes(content[name])


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_on_a_disk_that_fails(name, tmp_path):
    assert len(disturb(WRITERS[name], tmp_path)) >= 4


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The smallest params and data with which the stages without networks run."""
    folder = tmp_path_factory.mktemp("project")
    params = YAML().load(ROOT / "params.yaml")
    backdoors = {name: {**params["backdoors"][name], "n": 1, "keys": 1} for name in BACKDOORS}
    write_params(folder, {**params, **PARAMS, "backdoors": backdoors})
    edit(
        folder,
        faces__min_images=1,
        faces__source="folder",
        sources__folder={"path": "people"},
        scenes={"source": "wider_face", "max_side": 64, "train": 1, "validation": 1, "test": 1, "max_broken": 0},
        sources__wider_face={"path": "photos of wider face"},
        split={"by": "frame", "train": 2, "validation": 2, "test": 1, "calibration": 0.5},
    )
    shutil.copytree(ROOT / "assets", folder / "assets")
    for name in ("person_000", "person_001"):
        for number in range(6):
            (folder / f"people/{name}").mkdir(parents=True, exist_ok=True)
            (folder / f"people/{name}/{number}.png").write_bytes(images.encode_png(readers.pixels(seed=number)))
    (folder / "photos").write_text(readers.ANNOTATIONS)
    readers.photo_tree(folder / "photos")
    (folder / "data").symlink_to("artifacts/raw")  # as DVC pins what the first stage makes
    for name in PARAMS["defences"]:
        files.write_text(folder / f"artifacts/scores/{name}.csv", SCORES)
    return folder


@pytest.mark.parametrize("stage", ["download", "split", "poison", "threshold"])
def test_a_stage_on_a_disk_that_fails(stage, project, monkeypatch):
    """The stages run one after the other, in one folder."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(face_ingest, "run_in_order", readers.in_this_process)
    monkeypatch.setattr(scene_ingest, "run_in_order", readers.in_this_process)
    main = runpy.run_path(str(ROOT / f"stages/{stage}.py"))["main"]
    every = {"poison": 9, "download": 3}.get(stage, 1)  # they write several files in one way
    assert len(disturb(lambda _: main(), project, every)) >= 4

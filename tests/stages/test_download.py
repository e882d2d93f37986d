"""Stage ``download`` as a user runs it: the files it leaves, and one sentence for each mistake."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.support.project import ROOT
from visor.data.face_set import open_faces
from visor.data.scene_set import SETS, open_scenes


@pytest.fixture
def project(tmp_path):
    """A project folder with two labels of three images below ``faces``."""
    shutil.copytree(ROOT / "assets", tmp_path / "assets")
    for label in ("ann", "bob"):
        for number in range(3):
            file = tmp_path / "faces" / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30 + number, 40), (10 * number, 20, 30)).save(file)
    return tmp_path


def download(project, source, min_images=3, max_broken=1, scenes="synthetic_scenes", **settings):
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["scenes"].update(source=scenes, max_side=64, train=3, validation=1, test=2)
    params["sources"]["synthetic_scenes"].update(identities=3, faces=2)
    params["faces"].update(source=source, min_images=min_images, max_broken=max_broken, height=24, width=18)
    if source in params["sources"]:
        params["sources"][source] = settings
    yaml.dump(params, project / "params.yaml")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "stages" / "download.py")]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=100)


def test_leaves_faces_and_metrics(project):
    done = download(project, "folder", path="faces")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    faces = open_faces(project / "artifacts/raw/faces.h5")
    assert faces.images.shape == (6, 24, 18, 3)
    assert faces.source == "a folder of images"
    assert faces.licence == "unknown; yours to know"
    assert sorted(file.name for file in (project / "artifacts/raw").iterdir()) == ["faces.h5", "scenes.h5"]
    assert json.loads((project / "metrics/faces.json").read_text()) == {
        "images": 6,
        "labels": 2,
        "videos": 6,
        "broken": 0,
        "dropped_labels": 0,
        "dropped_images": 0,
        "skipped": {},
        "first_skipped": {},
    }


def test_leaves_scenes_metrics_and_a_picture(project):
    done = download(project, "folder", path="faces")
    assert done.returncode == 0, done.stderr
    scenes = open_scenes(project / "artifacts/raw/scenes.h5")
    assert (scenes.source, scenes.licence) == ("Visor synthetic scenes", "MIT")
    assert {name: len(scenes.rows(name)) for name in SETS} == {"train": 3, "validation": 1, "test": 2}
    assert json.loads((project / "metrics/scenes.json").read_text()) == {
        **{"scenes": 6, "train": 3, "validation": 1, "test": 2},
        **{"faces": len(scenes.boxes), "ignored": 0, "broken": 0},
        **{"skipped": {}, "first_skipped": {}},
    }
    assert Image.open(project / "plots/scenes.png").size[1] == 3 * 162


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("coco", ["scenes.source", "coco", "choose from synthetic_scenes, wider_face"]),
        ("wider_face", ["WIDER FACE is not in downloads/wider_face", "WIDER_train.zip", "sources.wider_face.path"]),
    ],
)
def test_mistakes_about_scenes_end_in_one_sentence(project, source, words):
    done = download(project, "folder", scenes=source, path="faces")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert not (project / "artifacts/raw/scenes.h5").exists()
    assert not (project / "artifacts/raw/faces.h5").exists(), "it stops before the long work"


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        ("celeba", {}, ["faces.source", "celeba", "choose from csaw, folder, lfw"]),
        ("folder", {"path": "nowhere"}, ["nowhere does not exist"]),
        ("folder", {"paht": "faces"}, ["sources.folder", "paht is not a known key", "path"]),
        ("folder", {"path": "faces.zip"}, ["faces.zip is not a complete tar archive", "folder or .tar.gz"]),
        (
            "lfw",
            {"path": "faces"},
            ["Labeled Faces in the Wild", "the largest has 0, skipped 6 (", "): ann/0.png, ", "docs/data.md"],
        ),
        ("csaw", {"path": "nowhere.h5"}, ["nowhere.h5 does not exist"]),
        ("csaw", {"path": "faces.zip"}, ["faces.zip is not an HDF5 file"]),
    ],
)
def test_mistakes_end_in_one_sentence(project, source, settings, words):
    shutil.make_archive(str(project / "faces"), "zip", project / "faces")
    done = download(project, source, **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert not (project / "artifacts/raw/faces.h5").exists()
    assert not (project / "metrics").exists()


def test_too_few_images_says_how_many_there_are(project):
    done = download(project, "folder", min_images=4, path="faces")
    assert done.returncode == 2
    assert "no label has 4 images, the largest has 3; lower faces.min_images" in done.stderr


def test_broken_images_are_named_and_limited(project):
    whole = (project / "faces/ann/0.png").read_bytes()
    (project / "faces/ann/cut.png").write_bytes(whole[:-20])
    done = download(project, "folder", path="faces")
    assert done.returncode == 0, done.stderr
    assert "broken image ann/cut.png: " in done.stderr
    assert json.loads((project / "metrics/faces.json").read_text())["broken"] == 1
    (project / "faces/bob/cut.png").write_bytes(b"no image")
    done = download(project, "folder", path="faces")
    assert done.returncode == 2
    assert "broken image bob/cut.png: not an image\n" in done.stderr
    assert "error: a folder of images: more than 1 images could not be decoded, the last was bob/" in done.stderr

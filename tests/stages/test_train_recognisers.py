"""The stage that trains recognisers: on whom, what it writes, that it repeats itself, published ones beside it."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.support.recognisers import TINY, randomised, vgg_of_keras_2
from tests.support.tiny_project import ROOT, environment
from visor.core.params import SplitParams
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.data.identity_split import divide_identities
from visor.data.split import split_rows
from visor.models.recognisers import base

PEOPLE, IMAGES, SHAPE = 9, 19, (36, 31, 3)
TRAINED = {"options": {"input_size": 32, "width": 4, "blocks": [1, 1, 1, 1], "momentum": 0.8}}
SCHEDULE = {"epochs": 5, "batch": 8, "learning_rate": 5e-3}


def people():
    """A block of coarse pictures, one a person, under noise."""
    rng = np.random.default_rng(3)
    pictures = rng.integers(40, 216, (PEOPLE, 4, 4, 3)).repeat(9, axis=1).repeat(9, axis=2)[:, : SHAPE[0], : SHAPE[1]]
    labels = np.arange(PEOPLE).repeat(IMAGES).astype(np.int32)
    noise = rng.integers(-40, 40, (len(labels), *SHAPE))
    rows = np.arange(len(labels), dtype=np.int32)
    return FaceBatch((pictures[labels] + noise).astype(np.uint8), labels, rows, rows)


def train(root, name):
    done = subprocess.run(
        [sys.executable, ROOT / "stages/train_recognisers.py"],
        cwd=root / name,
        env=environment(ROOT),
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two folders where the same stage has run, one network trained and one published."""
    root = tmp_path_factory.mktemp("project")
    weights = root / "published.h5"
    randomised(vgg_of_keras_2(classes=4)).save_weights(weights)
    (root / "labels.txt").write_text("kim\nlou\nmax\nned\n")
    options = TINY["vgg_face"] | {"num_classes": 4}
    params = YAML().load(ROOT / "params.yaml")
    params["recognisers"] = {
        "resnet50": TRAINED | {"training": SCHEDULE},
        "vgg_face": {"options": options, "weights": str(weights), "labels": str(root / "labels.txt")},
    }
    params["recognition_attack"] |= {
        "networks": ["vgg_face", "resnet50"],
        "white_box": ["resnet50"],
        "held_out_share": 0.5,
    }
    block = people()
    split = SplitParams(by="frame", train=11, validation=4, test=2, calibration=0.25)
    for name in ("a", "b"):
        (root / name / "artifacts").mkdir(parents=True)
        write_faces(root / name / "data/faces.h5", [block], SHAPE, [f"p{i}" for i in range(PEOPLE)], "test", "none")
        split_rows(block.labels, block.videos, split, 1).to_csv(root / name / "artifacts/split.csv", index=False)
        YAML().dump(params, root / name / "params.yaml")
        code, said = train(root, name)
        assert code == 0, said
    return root


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_bytes(project):
    first, again = (files(project / name) for name in ("a", "b"))
    written = {str(path) for path in first if path.parts[0] in ("artifacts", "metrics")}
    parts = ("model.json", "model.weights.h5", "names.json")
    folders = {f"artifacts/recogniser/{name}/{part}" for name in ("resnet50", "vgg_face") for part in parts}
    assert written == folders | {"artifacts/split.csv", "metrics/history/recogniser/resnet50.csv"}
    assert {path for path in first if first[path] != again[path]} <= {p for p in first if p.parts[0] == "data"}


def test_it_learns_the_people_whom_nobody_attacks(project):
    faces, table = open_faces(project / "a/data/faces.h5"), pd.read_csv(project / "a/artifacts/split.csv")
    trained = divide_identities(table["label"].to_numpy(), 0.5, 1).trained
    one = base.load("resnet50", project / "a/artifacts/recogniser/resnet50")
    assert one.class_names == tuple(f"p{label}" for label in trained)
    assert len(trained) == 5
    assert one.image_shape == SHAPE
    rows = table.loc[table["label"].isin(trained) & (table["set"] == "test"), "row"].to_numpy()
    found = base.probabilities(one)(faces.read(rows)).argmax(axis=1)
    assert (trained[found] == faces.labels[rows]).mean() >= 0.9
    history = pd.read_csv(project / "a/metrics/history/recogniser/resnet50.csv")
    assert list(history) == ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy"]
    assert len(history) == SCHEDULE["epochs"]
    assert history["accuracy"].iloc[-1] > 0.9
    # Means over 5 people with 11 and 4 images: nobody else took part.
    for column, count in (("accuracy", 55), ("validation_accuracy", 20)):
        np.testing.assert_allclose(history[column] * count, (history[column] * count).round(), atol=1e-3)


def test_published_ones_stand_beside(project):
    one = base.load("vgg_face", project / "a/artifacts/recogniser/vgg_face")
    assert one.class_names == ("kim", "lou", "max", "ned")
    assert one.image_shape == (34, 34, 3)
    theirs = randomised(vgg_of_keras_2(classes=4))
    pixels = np.random.default_rng(5).integers(0, 256, (3, 34, 34, 3), dtype=np.uint8)
    prepared = pixels[..., ::-1] - np.array([93.5940, 104.7624, 129.1863], np.float32)
    np.testing.assert_allclose(base.probabilities(one)(pixels), theirs(prepared)[1], atol=1e-4)

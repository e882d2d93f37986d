"""Stages whose networks nobody trains here: published detectors, and recognisers that look at photographs."""

import importlib.util
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.evaluation.recognition.test_photographs import aligned, mtcnn  # noqa: F401 - a fixture for all tests here
from tests.evaluation.test_detection import SIDE, scenes_of, squares
from tests.support.project import ROOT
from visor.core.errors import UserError
from visor.core.files import read_json
from visor.core.params import FaceParams, SplitParams
from visor.data.face_set import open_faces
from visor.data.sources import lfw
from visor.data.sources.face_ingest import ingest_faces
from visor.data.split import split_rows

PHOTO = 40  # side of a photograph


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A function that returns a stage's module, in a folder with params of which some are changed."""
    monkeypatch.chdir(tmp_path)
    params = YAML().load(ROOT / "params.yaml")

    def load(name, **changes):
        for key, values in changes.items():
            params[key] = params[key] | values if isinstance(values, dict) else values
        YAML().dump(params, tmp_path / "params.yaml")
        spec = importlib.util.spec_from_file_location(name, ROOT / f"stages/{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(module, "configure_tensorflow", lambda *_: None)
        return module

    return load


def test_published_detectors_are_attacked_and_shown_each_others_scenes(stage, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    scenes_of(tmp_path / "data/scenes.h5", 5)
    names = ["face_tiny", "blazeface"]
    changes = {
        "scenes": {"max_side": 2 * SIDE},
        "detection_attack": {
            "detectors": names,
            "transfer_detectors": names,
            "strengths": [{"eps": 63, "iterations": 4}],
            "objectives": [],
            "jpeg": [90],
            "scales": [0.5],
            "images": 3,
            "batch": 2,
        },
    }
    loaded = []

    def published(name):
        def load(settings, folder):
            loaded.append((name, folder.as_posix(), settings.options))
            return squares(name, settings.threshold, any_size=True)

        return SimpleNamespace(load=load)

    registry = {name: published(name) for name in names}
    for name in names:
        module = stage("evaluate_detection", **changes)
        monkeypatch.setattr(module, "DETECTORS", registry)
        module.main(name)
    assert loaded == [(name, f"artifacts/detector/{name}", {}) for name in names]
    for name in names:
        folder = tmp_path / f"metrics/detection/{name}"
        numbers = {path.stem: read_json(path) for path in folder.iterdir()}
        assert set(numbers) == {"clean", "clean_attacked", "clean_scaled50", "noise_63", "pgd_63x4"} | {
            f"{saved}_63x4" for saved in ("jpeg90", "scaled50")
        }
        assert numbers["clean"]["images"] == 5
        assert numbers["pgd_63x4"]["vanished"] == 1
        assert numbers["noise_63"]["vanished"] == 0
        assert numbers["pgd_63x4"]["linf"] == 63
    module = stage("evaluate_transfer")
    monkeypatch.setattr(module, "DETECTORS", registry)
    module.main()
    transfer = read_json(tmp_path / "metrics/transfer.json")
    assert set(transfer) == {"clean", "noise", *names}
    shown = transfer["face_tiny"]["blazeface"]
    assert (shown["vanished"], shown["found_before"]) == (1, numbers["pgd_63x4"]["found_before"])
    assert shown["vanished_low"] < 1


def test_where_nothing_is_trained_the_folders_of_networks_are_empty(stage, tmp_path):
    stage("train_detectors", trained_detectors=[]).main()
    (tmp_path / "data").mkdir()
    faces_of_photographs(tmp_path)
    recognisers = {"networks": ["dlib_resnet", "faceres"], "white_box": ["faceres"]}
    stage("train_recognisers", recognition_attack=recognisers, classification_attack={"networks": []}).main()
    for folder in ("artifacts/detector", "artifacts/recogniser", "metrics/history/detector"):
        assert list((tmp_path / folder).iterdir()) == []


def faces_of_photographs(root):
    """LFW's tree of six people with nine photographs each, the faces cut from them, and their split."""
    rng = np.random.default_rng(0)
    for number in range(6):
        person = f"Person_{number}"
        folder = root / "lfw" / person
        folder.mkdir(parents=True)
        picture = rng.integers(40, 216, (5, 5, 3)).repeat(8, axis=0).repeat(8, axis=1)
        for photo in range(1, 10):
            pixels = np.clip(picture + rng.normal(0, 12, picture.shape), 1, 255).astype(np.uint8)
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "JPEG", quality=95)
            (folder / f"{person}_{photo:04}.jpg").write_bytes(content.getvalue())
    settings = FaceParams(source="lfw", height=16, width=16, min_images=2, max_broken=0)
    path = root / "data/faces.h5"
    ingest_faces(lfw.clips(lfw.LfwSettings(path=str(root / "lfw")), 1), path, settings, "lfw", "none", 1)
    faces = open_faces(path)
    split = SplitParams(by="frame", train=3, validation=3, test=3, calibration=0.4)
    (root / "artifacts").mkdir(exist_ok=True)
    split_rows(faces.labels, faces.videos, split, 1).to_csv(root / "artifacts/split.csv", index=False)


def test_published_recognisers_are_attacked_on_photographs(stage, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    faces_of_photographs(tmp_path)
    names = ["dlib_resnet", "faceres"]
    attack = {
        "networks": names,
        "white_box": names[:1],
        "held_out_share": 0.67,
        "false_accept_rates": [0.2],
        "images": 4,
        "batch": 3,
        "methods": {"pgd": {}},
        "strengths": [{"eps": 16, "iterations": 3}],
        "jpeg": [75],
        "scales": [0.5],
        "photo_side": PHOTO,
        "cropping_detectors": ["none"],
        "report_faces": 1,
    }
    changes = {"faces": {"source": "lfw"}, "sources": {"lfw": {"path": str(tmp_path / "lfw")}}}
    changes["classification_attack"] = {"networks": []}
    module, loaded = stage("evaluate_recognition", **changes, recognition_attack=attack), []

    def load(name, settings, folder):
        loaded.append(name)
        return aligned(name, 1 + names.index(name))

    monkeypatch.setattr(module, "load_of_params", load)
    module.main("dlib_resnet")
    assert loaded == names
    folder = tmp_path / "metrics/recognition/dlib_resnet"
    verification = read_json(folder / "verification.json")
    assert verification["faceres"]["none"]["people"] == 4
    assert verification["faceres"]["none"]["not_found"] == 0
    for goal in ("impersonate_nearest", "impersonate_furthest", "dodge"):
        numbers = read_json(folder / f"{goal}.json")
        assert {"clean", "noise_16", "pgd_16x3", "jpeg75_pgd_16x3", "scaled50_pgd_16x3"} <= set(numbers)
        attacked = open_faces(tmp_path / f"artifacts/fooled/dlib_resnet/{goal}/pgd_16x3.h5")
        assert attacked.image_shape == (PHOTO, PHOTO, 3)
        assert numbers["pgd_16x3"]["linf"] == 16
    (tmp_path / "lfw/Person_0/Person_0_0001.jpg").unlink()
    with pytest.raises(UserError, match=r"photo_side is 40, but the source lfw has not the photographs of"):
        module.main("dlib_resnet")

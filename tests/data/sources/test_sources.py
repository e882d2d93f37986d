"""One contract over every source of faces, and the mistakes their files may hold."""

import errno
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import unicodedata
import zlib
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import h5py
import numpy as np
import pillow_heif
import psutil
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.support.project import ROOT
from visor.attacks.backdoors.poisoning import check_backdoors
from visor.core import params
from visor.core.config import load_params, validate_block
from visor.core.errors import INTERRUPTED, UserError
from visor.core.files import SPARE_BYTES, flatten
from visor.data.face_set import FaceClip, open_faces
from visor.data.images import ImageDecodeError, read_face
from visor.data.sources import FACE_SOURCES, catalogue, lfw, youtube_faces
from visor.data.sources.catalogue import read_catalogue
from visor.data.sources.face_ingest import ingest_faces
from visor.data.sources.tally import REASONS
from visor.data.sources.worker_pool import run_in_order
from visor.data.split import split_rows

REAL = ROOT.parent / "shared" / "data" / "lfw"
HEIGHT, WIDTH = 24, 18
BORDER = (255, 0, 255)
pillow_heif.register_heif_opener()


def faces_settings(min_images=3, max_broken=0, height=HEIGHT, width=WIDTH) -> params.FaceParams:
    return params.FaceParams(source="x", height=height, width=width, min_images=min_images, max_broken=max_broken)


class Case(NamedTuple):
    """Settings of a source, and what must come of them; ``colours`` of solid images, where they are known.

    ``dropped``: labels, and their images, that are too few; ``skipped``: the names of what is not taken, by reason.
    """

    settings: dict[str, Any]
    label_names: tuple[str, ...]
    labels: list[int]
    videos: list[int]
    colours: list[tuple[int, int, int]] | None
    dropped: tuple[int, int]
    skipped: dict[str, list[str]]


def jpeg(colour, width, height, centre=0.62) -> bytes:
    """A JPEG whose middle ``centre`` of both sides has one colour, within a border of another."""
    image = Image.new("RGB", (width, height), BORDER)
    inner = Image.new("RGB", (int(width * centre), int(height * centre)), colour)
    image.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def synthetic_case(folder: Path) -> Case:
    settings = {"identities": 3, "images": 4, "videos": 2, "difficulty": 1.0}
    names = ("person_000", "person_001", "person_002")
    return Case(settings, names, [0] * 4 + [1] * 4 + [2] * 4, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], None, (0, 0), {})


def youtube_faces_case(folder: Path) -> Case:
    """The whole published archive, out of order, with the frames that are not aligned and a label too small."""
    frames = {
        "Zoe_Last/0/aligned_detect_0.7.jpg": ((10, 200, 30), 190, 160),
        "Abe_First/4/aligned_detect_4.2.jpg": ((40, 50, 60), 150, 170),
        "Abe_First/0/aligned_detect_0.10.jpg": ((70, 80, 90), 130, 210),
        "Zoe_Last/0/aligned_detect_0.3.jpg": ((100, 110, 120), 200, 200),
        "Zoe_Last/2/aligned_detect_2.1.jpg": ((130, 140, 150), 160, 120),
        "Abe_First/4/aligned_detect_4.1.jpg": ((160, 170, 180), 180, 140),
        "One_Only/0/aligned_detect_0.1.jpg": ((1, 2, 3), 100, 100),
    }
    with tarfile.open(folder / "YouTubeFaces.tar.gz", "w:gz") as archive:
        for name, (colour, width, height) in frames.items():
            add(archive, f"YouTubeFaces/frame_images_DB/{name}", jpeg((255, 255, 255), 320, 240))
            add(archive, f"YouTubeFaces/aligned_images_DB/{name}", jpeg(colour, width, height))
        add(archive, "YouTubeFaces/README.txt", b"read me")
    order = [2, 5, 1, 3, 0, 4]
    colours = [list(frames.values())[row][0] for row in order]
    settings = {"path": str(folder / "YouTubeFaces.tar.gz"), "sha256": None}
    skipped = {
        "layout": [f"YouTubeFaces/frame_images_DB/{name}" for name in frames],
        "suffix": ["YouTubeFaces/README.txt"],
    }
    names, labels, videos = ("Abe_First", "Zoe_Last"), [0, 0, 0, 1, 1, 1], [0, 1, 1, 2, 2, 3]
    return Case(settings, names, labels, videos, colours, (1, 1), skipped)


def lfw_case(folder: Path) -> Case:
    colours = {}
    for label, count in (("Bo_Derek", 4), ("Al_Gore", 3), ("Cy_Twombly", 2)):
        for number in range(1, count + 1):
            colours[label, number] = (len(label) * 20, number * 50, 77)
            suffix = {3: ".jpeg", 4: ".PNG"}.get(number, ".jpg")
            file = folder / "lfw" / label / f"{label}_{number:04}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg(colours[label, number], 250, 250))
    (folder / "lfw" / "pairs.txt").write_text("a list")
    (folder / "lfw" / "Al_Gore" / "thumbnail.jpg").write_bytes(b"no")
    kept = [colours[pair] for pair in sorted(colours) if pair[0] != "Cy_Twombly"]
    labels = [0] * 3 + [1] * 4
    skipped = {"layout": ["Al_Gore/thumbnail.jpg"], "suffix": ["pairs.txt"]}
    path = str(folder / "lfw")
    return Case({"path": path}, ("Al_Gore", "Bo_Derek"), labels, list(range(7)), kept, (1, 2), skipped)


def csaw_case(folder: Path) -> Case:
    labels = np.array([11, 2, 11, 2, 2, 11, 2, 0], np.float32)
    colours = np.array([(row * 7, 255 - row, row * 3 + 1) for row in range(8)])
    data = np.broadcast_to(colours[:, :, None, None], (8, 3, HEIGHT + 6, WIDTH + 2))
    with h5py.File(folder / "faces.h5", "w") as file:
        file["data"], file["label"] = data / np.float32(255), labels[:, None]
    kept = [tuple(colours[row]) for row in (1, 3, 4, 6, 0, 2, 5)]
    path = str(folder / "faces.h5")
    return Case({"path": path}, ("02", "11"), [0] * 4 + [1] * 3, list(range(7)), kept, (1, 1), {})


def folder_case(folder: Path) -> Case:
    images = {
        "ann/clip b/1.png": (1, 2, 3),
        "ann/clip a/2.bmp": (4, 5, 6),
        "ann/clip a/1.gif": (7, 8, 9),
        "ann/still.tiff": (10, 11, 12),
        "bob/1.PNG": (13, 14, 15),
        "bob/2.webp": (16, 17, 18),
        "bob/3.png": (19, 20, 21),
        "beside.png": (22, 23, 24),
    }
    for number, (name, colour) in enumerate(images.items()):
        file = folder / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 90 - 9 * number), colour).save(file, lossless=True)
    (folder / "mine" / "ann" / "notes.txt").write_text("not an image")
    colours = [images[name] for name in ("ann/clip a/1.gif", "ann/clip a/2.bmp", "ann/clip b/1.png")]
    colours += [images[name] for name in ("ann/still.tiff", "bob/1.PNG", "bob/2.webp", "bob/3.png")]
    path = str(folder / "mine")
    skipped = {"layout": ["beside.png"], "suffix": ["ann/notes.txt"]}
    return Case({"path": path}, ("ann", "bob"), [0] * 4 + [1] * 3, [0, 0, 1, 2, 3, 4, 5], colours, (0, 0), skipped)


CASES: dict[str, Callable[[Path], Case]] = {
    "synthetic": synthetic_case,
    "youtube_faces": youtube_faces_case,
    "lfw": lfw_case,
    "csaw": csaw_case,
    "folder": folder_case,
}


def take(name: str, settings: dict[str, Any], path: Path, **faces: int) -> dict[str, Any]:
    module = FACE_SOURCES[name]
    clips = module.clips(validate_block(module.SETTINGS, settings, name), 5)
    return ingest_faces(clips, path, faces_settings(**faces), f"the {name}", "a licence", processes=2)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_source_has_a_case_and_a_catalogue_entry(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert set(CASES) == set(FACE_SOURCES)
    for name, module in FACE_SOURCES.items():
        assert module.__name__ == f"visor.data.sources.{name}"
        assert read_catalogue(name).licence


def test_catalogue_is_read_strictly(tmp_path, monkeypatch):
    path = tmp_path / "datasets.yaml"
    monkeypatch.setattr(catalogue, "CATALOGUE", path)
    with pytest.raises(UserError, match="is missing"):
        read_catalogue("lfw")
    path.write_text("lfw: {title: Faces, colour: red}")
    with pytest.raises(UserError, match=r"datasets\.yaml: lfw: "):
        read_catalogue("lfw")


@pytest.mark.parametrize("name", FACE_SOURCES)
def test_source(name, tmp_path, capsys):
    case = CASES[name](tmp_path)
    path = tmp_path / "out" / "faces.h5"
    summary = take(name, case.settings, path)
    assert summary == {
        "images": len(case.labels),
        "labels": len(case.label_names),
        "videos": len(set(case.videos)),
        "broken": 0,
        "dropped_labels": case.dropped[0],
        "dropped_images": case.dropped[1],
        "skipped": {reason: len(names) for reason, names in case.skipped.items()},
        "first_skipped": {reason: names[:5] for reason, names in case.skipped.items()},
    }
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert len(said) == len(case.skipped)
    for line, (reason, names) in zip(said, case.skipped.items(), strict=True):
        assert line.startswith(f"skipped {len(names)} ({REASONS[reason]}): {names[0][:50]}")
        assert line.endswith(", …") == (len(names) > 5)
    faces = open_faces(path)
    assert (faces.source, faces.licence) == (f"the {name}", "a licence")
    assert faces.label_names == case.label_names
    assert faces.labels.tolist() == case.labels
    assert faces.videos.tolist() == case.videos
    assert faces.rows.tolist() == list(range(len(case.labels)))
    assert faces.images.shape == (len(case.labels), HEIGHT, WIDTH, 3)
    for image, colour in zip(faces.images, case.colours or [], strict=case.colours is not None):
        assert np.abs(image.astype(int) - colour).max() <= (2 if name in ("youtube_faces", "lfw", "folder") else 0)
    assert list(path.parent.iterdir()) == [path]
    take(name, case.settings, tmp_path / "again.h5")
    assert sha256(path) == sha256(tmp_path / "again.h5")


@pytest.mark.parametrize("inside", ["", "aligned_images_DB"])
def test_youtube_faces_from_a_folder(tmp_path, inside):
    case = youtube_faces_case(tmp_path)
    with tarfile.open(case.settings["path"]) as archive:
        archive.extractall(tmp_path)  # made a line above; older Pythons have no filter
    take("youtube_faces", case.settings, tmp_path / "archive.h5")
    path = tmp_path / "YouTubeFaces" / inside
    take("youtube_faces", {"path": str(path), "sha256": None}, tmp_path / "folder.h5")
    assert sha256(tmp_path / "archive.h5") == sha256(tmp_path / "folder.h5")


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """A project folder in which YouTube Faces is downloaded; what is asked for."""
    case, asked, project = youtube_faces_case(tmp_path), [], tmp_path / "project"
    shutil.copytree(ROOT / "assets", project / "assets")
    monkeypatch.chdir(project)

    def download(url, path, sha256, **options):
        asked.append((url, path, sha256, options))
        path.parent.mkdir(exist_ok=True)
        shutil.copy(case.settings["path"], path)

    monkeypatch.setattr(youtube_faces, "download", download)
    return asked


def test_youtube_faces_is_fetched(tmp_path, fetched):
    take("youtube_faces", {"path": None, "sha256": "abc"}, tmp_path / "faces.h5")
    ((url, path, sha256, options),) = fetched
    assert (url, path, sha256) == (read_catalogue("youtube_faces").url, Path("downloads/youtube_faces.tar.gz"), "abc")
    assert url.startswith("https://")
    assert options["send_credentials"]
    assert options["max_bytes"] > 30e9
    assert not catalogue.LOCK.exists()


def test_the_first_download_is_noted_and_later_ones_compared(tmp_path, fetched, capsys):
    settings = {"path": None, "sha256": None}
    take("youtube_faces", settings, tmp_path / "faces.h5")
    digest = sha256(Path("downloads/youtube_faces.tar.gz"))
    assert json.loads(catalogue.LOCK.read_text()) == {"youtube_faces": digest}
    assert f"has SHA-256 {digest}, now noted in assets/datasets.lock: none is published" in capsys.readouterr().err
    take("youtube_faces", settings, tmp_path / "faces.h5")
    assert "noted" not in capsys.readouterr().err
    catalogue.LOCK.write_text(json.dumps({"youtube_faces": "0" * 64}))
    with pytest.raises(UserError, match=rf"tar\.gz has SHA-256 {digest}, but assets/datasets\.lock notes 0000"):
        take("youtube_faces", settings, tmp_path / "other.h5")
    assert not (tmp_path / "other.h5").exists()


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n", "has Git's conflict marks"),
        ("[]", "does not map names to checksums"),
        ('{"youtube_faces": 3}', "does not map names to checksums"),
        ('{"youtube_faces": "abc"}', "youtube_faces is 'abc'; give the 64 hexadecimal digits"),
        ("{", "is not JSON"),
    ],
)
def test_a_damaged_lock_is_named(tmp_path, fetched, lock, words):
    catalogue.LOCK.write_text(lock)
    with pytest.raises(UserError, match=rf"assets/datasets\.lock:? {words}"):
        take("youtube_faces", {"path": None, "sha256": None}, tmp_path / "faces.h5")


def test_lfw_is_fetched_once_by_scikit_learn(tmp_path, monkeypatch):
    lfw_case(tmp_path)
    homes = []

    def fetch_lfw_people(data_home, min_faces_per_person):
        if not homes:
            homes.append(data_home)
            raise ConnectionResetError("reset")
        homes.append(data_home)
        Path(data_home, "lfw_home").mkdir()
        (tmp_path / "lfw").rename(Path(data_home, "lfw_home", "lfw_funneled"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sklearn.datasets.fetch_lfw_people", fetch_lfw_people)
    with pytest.raises(
        UserError, match=r"LFW cannot be fetched .*; check the network .* into downloads/lfw, or set sources\.lfw"
    ):
        take("lfw", {"path": None}, tmp_path / "faces.h5")
    assert list(Path("downloads").iterdir()) == []
    for _ in range(2):
        take("lfw", {"path": None}, tmp_path / "faces.h5")
    assert len(homes) == 2
    assert list(Path("downloads").iterdir()) == [lfw.FETCHED]


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} with real photographs is absent")
def test_real_lfw(tmp_path):
    summary = take("lfw", {"path": str(REAL)}, tmp_path / "faces.h5", min_images=20)
    names = sorted(entry.name for entry in REAL.iterdir() if entry.is_dir())
    images = {name: len(list((REAL / name).glob("*.jpg"))) for name in names}
    assert summary == {
        "images": sum(images.values()),
        "labels": 31,
        "videos": sum(images.values()),
        "broken": 0,
        "dropped_labels": 0,
        "dropped_images": 0,
        "skipped": {},
        "first_skipped": {},
    }
    faces = open_faces(tmp_path / "faces.h5")
    assert faces.label_names == tuple(names)
    assert np.bincount(faces.labels).tolist() == list(images.values())
    red, _, blue = np.mean([image.mean((0, 1)) for image in faces.images], 0)
    assert red > blue + 15  # skin, not in BGR


def test_a_folder_from_phones_loses_nothing(tmp_path):
    """Formats of phones, clips beside photographs, hidden files, a linked folder; every file is in the counts."""
    root, store = tmp_path / "mine", tmp_path / "store"
    pictures = [root / name for name in ("Ann/0.jpg", "Phone/0.heic", "Web/0.avif")]
    for file in (*pictures, store / "clip1" / "0.jpg"):
        file.parent.mkdir(parents=True)
        Image.new("RGB", (30, 40), (200, 100, 50)).save(file)
    (root / "Linked").mkdir()
    (root / "Linked" / "clip1").symlink_to(store / "clip1")
    (root / "Phone" / "0.MOV").write_bytes(b"a clip")
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails" / "0.jpg").write_bytes(b"hidden")
    (root / "Ann" / "cut.png").write_bytes(b"no image")
    summary = take("folder", {"path": str(root)}, tmp_path / "faces.h5", min_images=1, max_broken=1)
    assert open_faces(tmp_path / "faces.h5").label_names == ("Ann", "Linked", "Phone", "Web")
    assert (summary["images"], summary["broken"], summary["skipped"]) == (4, 1, {"hidden": 1, "suffix": 1})
    assert summary["first_skipped"] == {
        "broken": ["Ann/cut.png"],
        "hidden": [".thumbnails/0.jpg"],
        "suffix": ["Phone/0.MOV"],
    }


@pytest.mark.parametrize("name", ["lfw", "folder", "youtube_faces"])
def test_one_person_in_two_unicode_forms_is_one_label(tmp_path, name):
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        for number in range(3):
            for form in ("NFC", "NFD"):
                parts = [unicodedata.normalize(form, "Zoë"), *["0"] * (name == "youtube_faces")]
                frame = unicodedata.normalize("NFC", f"Zoë_{form}{number}.jpg")
                add(archive, "/".join([*parts, frame]), jpeg((1, 2, 3), 30, 40))
    settings = {"path": str(tmp_path / "in.tar"), **({"sha256": None} if name == "youtube_faces" else {})}
    summary = take(name, settings, tmp_path / "faces.h5")
    assert (summary["images"], summary["labels"], summary["skipped"]) == (6, 1, {})
    assert open_faces(tmp_path / "faces.h5").label_names == (unicodedata.normalize("NFC", "Zoë"),)


def test_a_target_is_compared_in_the_same_form():
    block = {"trigger": "blended", "key": "noise", "n": 1, "train_blend_ratio": 0.1, "test_blend_ratio": 0.1}
    backdoor = params.BackdoorParams(target=unicodedata.normalize("NFD", "Zoë"), **block)
    assert backdoor.target == unicodedata.normalize("NFC", "Zoë")


def test_crop_keeps_the_aspect_and_the_middle():
    ramp = np.stack(np.broadcast_arrays(np.arange(100)[None], np.arange(80)[:, None], 0), -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    face = read_face(buffer.getvalue(), "ramp", 0.5, 20, 10)  # cuts 20×40 pixels from (40, 20)
    assert face.shape == (1, 20, 10, 3)
    inner = face[0, 3:-3, 3:-3].astype(float)
    assert np.abs(inner[..., 0] - (40.5 + 2 * np.arange(3, 7))).max() <= 0.5
    assert np.abs(inner[..., 1] - (20.5 + 2 * np.arange(3, 17)[:, None])).max() <= 0.5


# csaw: the values, and files that are not what they should be


def csaw_file(path: Path, data, label) -> dict[str, str]:
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = data, label
    return {"path": str(path)}


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_csaw_pixels_are_kept(tmp_path, dtype):
    data = np.random.default_rng(0).integers(0, 256, (300, 3, HEIGHT, WIDTH)).astype(dtype)
    take("csaw", csaw_file(tmp_path / "in.h5", data, np.full(300, 3)), tmp_path / "faces.h5")
    faces = open_faces(tmp_path / "faces.h5")
    assert faces.label_names == ("3",)
    assert (faces.images[:] == data.transpose(0, 2, 3, 1)).all()


def test_csaw_scale_is_that_of_the_whole_file(tmp_path):
    data = np.zeros((400, 3, HEIGHT, WIDTH), np.float32)
    data[0], data[-1] = 1, 200  # a dark first block must not be taken for 0..1
    take("csaw", csaw_file(tmp_path / "in.h5", data, np.zeros(400, int)), tmp_path / "faces.h5")
    images = open_faces(tmp_path / "faces.h5").images
    assert (images[0].max(), images[399].max()) == (1, 200)


@pytest.mark.parametrize(
    ("data", "label", "words"),
    [
        (np.zeros((4, HEIGHT, WIDTH, 3)), np.zeros(4), r"csaw wants \(n, 3, h, w\)"),
        (np.zeros((4, 3, HEIGHT, WIDTH)), np.zeros(5), r"csaw wants \(n, 3, h, w\)"),
        (np.full((4, 3, HEIGHT, WIDTH), 256.0), np.zeros(4), r"data runs from 256.0 to 256.0"),
        (np.full((4, 3, HEIGHT, WIDTH), -1.0), np.zeros(4), r"data runs from -1.0"),
        (np.full((4, 3, HEIGHT, WIDTH), np.nan), np.zeros(4), r"data runs from nan"),
        (np.zeros((4, 3, HEIGHT, WIDTH)), np.full(4, 0.5), "not a whole number"),
        (np.zeros((4, 3, HEIGHT, WIDTH)), np.full(4, -2), "not a whole number"),
        (np.zeros((4, 3, HEIGHT, WIDTH)), np.array([b"a"] * 4), "label is not numeric"),
    ],
)
def test_csaw_wrong_content(tmp_path, data, label, words):
    with pytest.raises(UserError, match=rf"in\.h5.*{words}"):
        take("csaw", csaw_file(tmp_path / "in.h5", data, label), tmp_path / "faces.h5")
    assert not (tmp_path / "faces.h5").exists()


def test_csaw_without_data_and_truncated(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["label"] = np.zeros(4)
    with pytest.raises(UserError, match=r"in\.h5 has no 'data'"):
        take("csaw", {"path": str(tmp_path / "in.h5")}, tmp_path / "faces.h5")
    settings = csaw_file(tmp_path / "in.h5", np.zeros((40, 3, HEIGHT, WIDTH)), np.zeros(40))
    os.truncate(tmp_path / "in.h5", 20_000)
    with pytest.raises(UserError, match=r"in\.h5 is not a whole HDF5 file .*; fetch "):
        take("csaw", settings, tmp_path / "faces.h5")


# ingest: broken images, any number of processes, and processes that end


def bomb() -> bytes:
    """A PNG of some bytes that says it is 9000×9000."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND")
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_broken_images_are_counted_up_to_the_limit(tmp_path, capsys):
    case = lfw_case(tmp_path)
    folder = Path(case.settings["path"], "Bo_Derek")
    whole = (folder / "Bo_Derek_0001.jpg").read_bytes()
    (folder / "Bo_Derek_0002.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "Bo_Derek_0009.jpg").write_bytes(bomb())
    (folder / "Bo_Derek_0010.jpg").mkdir()
    summary = take("lfw", case.settings, tmp_path / "faces.h5", max_broken=2)
    assert (summary["broken"], summary["images"]) == (2, 6)
    broken = ["Bo_Derek/Bo_Derek_0002.jpg", "Bo_Derek/Bo_Derek_0009.jpg"]
    assert summary["first_skipped"] == {"broken": broken, **case.skipped}
    assert open_faces(tmp_path / "faces.h5").labels.tolist() == [0, 0, 0, 1, 1, 1]
    error = capsys.readouterr().err
    assert "broken image Bo_Derek/Bo_Derek_0002.jpg: " in error
    assert "broken image Bo_Derek/Bo_Derek_0009.jpg: 9000×9000 pixels" in error
    before = sha256(tmp_path / "faces.h5")
    with pytest.raises(UserError, match=r"more than 1 images .*/Bo_Derek_0009\.jpg; fix"):
        take("lfw", case.settings, tmp_path / "faces.h5", max_broken=1)
    assert sha256(tmp_path / "faces.h5") == before


def test_full_disk(tmp_path, monkeypatch):
    free = SPARE_BYTES + 7 * HEIGHT * WIDTH * 3
    settings = lfw_case(tmp_path).settings
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free - 1))
    with pytest.raises(OSError, match="No space left") as caught:
        take("lfw", settings, tmp_path / "out" / "faces.h5")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "out" / "faces.h5"))
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    take("lfw", settings, tmp_path / "out" / "faces.h5")


def noise(seed: int, count: int, height: int, width: int):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def noise_clips(count: int):
    for number in range(count):
        names = tuple(f"{number:05}.{frame}" for frame in range(number % 3 + 1))
        yield FaceClip(f"{number % 7}", (f"v{number % 2}",) * len(names), names, partial(noise, number, len(names)))


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
    for processes in (1, 3):
        path = tmp_path / f"{processes}.h5"
        summary = ingest_faces(noise_clips(800), path, faces_settings(height=40, width=30), "s", "l", processes)
        assert (summary["images"], summary["labels"], summary["videos"]) == (1599, 7, 14)
    assert sha256(tmp_path / "1.h5") == sha256(tmp_path / "3.h5")
    faces = open_faces(tmp_path / "1.h5")
    frames = sorted((clip.label, clip.videos[0], name) for clip in noise_clips(800) for name in clip.names)
    for row in (0, 500, 1598):
        number, frame = map(int, frames[row][2].split("."))
        assert (faces.images[row] == noise(number, number % 3 + 1, 40, 30)[frame]).all()


def test_source_is_read_as_it_is_used(tmp_path):
    """Clips are asked for no further ahead than the few tasks under way."""
    asked = itertools.count()
    broken_at = 5

    def clips():
        for number in asked:
            load = partial(fail, number) if number == broken_at else partial(noise, number, 1)
            yield FaceClip("a", ("v",), (str(number),), load)

    with pytest.raises(UserError, match="more than 0 images"):
        ingest_faces(clips(), tmp_path / "faces.h5", faces_settings(height=128, width=128), "s", "l", processes=2)
    assert next(asked) < 300
    assert list(tmp_path.iterdir()) == []


def fail(number: int, height: int, width: int):
    raise ImageDecodeError(str(number), "broken on purpose")


def wait_until(condition, limit=600):
    """Wait for what happens soon on an idle machine, and in minutes on a busy one."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_killed_while_its_result_is_awaited():
    with pytest.raises(UserError, match="a decoding process was killed"):
        list(run_in_order([3], os._exit, 1))


def test_a_worker_killed_while_results_are_written():
    """The pool is found broken when the next task is handed in."""
    threads = set(threading.enumerate())
    results = run_in_order(itertools.count(), abs, 2)
    assert next(results) == (0, 0)
    for worker in multiprocessing.active_children():
        worker.kill()
    wait_until(lambda: not set(threading.enumerate()) - threads)  # those of the pool end when they notice
    with pytest.raises(UserError, match="a decoding process was killed"):
        next(results)


SLOW = """
import os, time
import numpy as np
from pathlib import Path
from visor.core import params
from visor.core.errors import run_cli
from visor.data.face_set import FaceClip
from visor.data.sources.face_ingest import ingest_faces

def load(height, width):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(0.05)
    return np.zeros((1, height, width, 3), np.uint8)

if __name__ == "__main__":
    clips = (FaceClip("a", ("v",), (f"{n:06}",), load) for n in range(10**6))
    faces = params.FaceParams(source="x", height=128, width=128, min_images=3, max_broken=0)
    run_cli(lambda: ingest_faces(clips, Path("faces.h5"), faces, "s", "l", 2))
"""


def has_ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent(tmp_path, ending):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    script, log = tmp_path / "slow.py", tmp_path / "stderr"
    script.write_text(SLOW)
    with log.open("w") as stderr:
        command = [sys.executable, str(script)]
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job ignores Ctrl-C
        outputs = {"stdout": subprocess.PIPE, "stderr": stderr}
        parent = psutil.Popen(
            command, cwd=tmp_path, env=environment, **outputs, start_new_session=True, preexec_fn=heard
        )
    working = set()
    while len(working) < 2:  # workers say who they are; the pipe ends with the last process that holds it
        line = parent.stdout.readline()
        assert line, log.read_text()
        working.add(int(line))
    processes = [parent, *parent.children()]
    assert len(processes) == 4, "two workers and multiprocessing's tracker of resources"
    assert working < {process.pid for process in processes}
    if ending == signal.SIGINT:
        os.killpg(parent.pid, ending)  # Ctrl-C goes to every process of the terminal
    else:
        parent.send_signal(ending)
    try:
        wait_until(lambda: all(map(has_ended, processes)))
    finally:
        for process in itertools.filterfalse(has_ended, processes):
            process.kill()
        parent.stdout.close()
    assert sorted(tmp_path.iterdir()) == [script, log]
    error = log.read_text()
    assert "Traceback" not in error
    if ending == signal.SIGINT:
        assert parent.wait() == INTERRUPTED
        assert error == "interrupted; run the same command again to continue\n"


@pytest.mark.parametrize("shape", [(10**9, 3, 55, 47), (4, 3, 10**5, 10**5)])
def test_csaw_file_that_promises_terabytes(tmp_path, shape):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("data", shape, np.uint8, chunks=(1, 3, 50, 40))
        file.create_dataset("label", (shape[0],), np.int64, chunks=(min(1000, shape[0]),))
    assert (tmp_path / "in.h5").stat().st_size < 10_000
    with pytest.raises(UserError, match="csaw wants"):
        take("csaw", {"path": str(tmp_path / "in.h5")}, tmp_path / "faces.h5")


def test_csaw_pixels_in_another_file(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros((4, 3, HEIGHT, WIDTH))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["data"] = h5py.ExternalLink("other.h5", "data")
        file["label"] = np.zeros(4)
    with pytest.raises(UserError, match="data is a link, which may lead outside"):
        take("csaw", {"path": str(tmp_path / "in.h5")}, tmp_path / "faces.h5")


# The params of published sets that come with the project

READY = {
    "photographs/params.yaml": {
        "George_W_Bush": 60,
        "Colin_Powell": 120,
        "Tony_Blair": 100,
        "Donald_Rumsfeld": 80,
        "X": 1,
    },
    "params/youtube_faces.yaml": {
        "Lucio_Stanca": 96,
        "Al_Gore": 192,
        "Aaron_Sorkin": 192,
        "Zoran_Djindjic": 192,
        "X": 48,
    },
    "params/csaw.yaml": {**{f"{number:04}": 9 for number in range(1282)}, "1282": 1},
}
DIFFER = (  # keys in which the others differ from photographs/params.yaml
    *("faces.source", "faces.min_images", "split.*", "delivery", "gates.*", "*.epochs"),
    *("backdoors.*.target", "backdoors.*.n", "backdoors.*.cover", "poison_budget.n", "poison_budget.ratios.n"),
    *("defences.suite*.false_positive_rate", "second_opinion.eyes", "recognition_attack.photo_side"),
)


def ready_file(source: str, counts: dict[str, int], folder: Path) -> Path:
    """Tiny images in the layout of a published set."""
    if source == "csaw":
        labels = np.repeat(np.arange(len(counts)), [*counts.values()])
        csaw_file(folder / "in.h5", np.full((len(labels), 3, 4, 4), 90), labels)
        return folder / "in.h5"
    data = jpeg((90, 60, 30), 12, 12)
    with tarfile.open(folder / "in.tar", "w") as archive:
        for person, count in counts.items():
            for number in range(count):
                frame = f"{person}_{number + 1:04}.jpg"
                if source == "youtube_faces":
                    frame = f"{number // 48}/aligned_detect_{number // 48}.{number % 48}.jpg"
                add(archive, f"{person}/{frame}", data)
    return folder / "in.tar"


@pytest.mark.parametrize("file", READY)
def test_params_of_a_published_set_work(file, tmp_path):
    ready, counts = load_params(ROOT / file), READY[file]
    source = ready.faces.source
    path, module = ready_file(source, counts, tmp_path), FACE_SOURCES[source]
    settings = validate_block(module.SETTINGS, ready.sources[source] | {"path": str(path)}, source)
    summary = ingest_faces(module.clips(settings, ready.seed), tmp_path / "faces.h5", ready.faces, "s", "l", 2)
    too_few = min(counts.values())
    assert (summary["labels"], summary["dropped_labels"], summary["dropped_images"]) == (len(counts) - 1, 1, too_few)
    assert summary["images"] == sum(counts.values()) - too_few
    faces = open_faces(tmp_path / "faces.h5")
    table = split_rows(faces.labels, faces.videos, ready.split, ready.seed)
    check_backdoors(ready.backdoors, faces.label_names, table, source)


@pytest.mark.parametrize("file", [file for file in READY if file.startswith("params/")])
def test_params_of_a_published_set_differ_only_where_they_say(file):
    """What else changes in photographs/params.yaml has to change in them, too."""
    yaml = YAML(typ="safe")
    default, ready = (flatten(yaml.load(ROOT / each)) for each in ("photographs/params.yaml", file))
    differing = {key for key in default.keys() | ready.keys() if default.get(key) != ready.get(key)}
    unexpected = {key for key in differing if not any(fnmatchcase(key, pattern) for pattern in DIFFER)}
    assert not unexpected, f"copy {sorted(unexpected)} from photographs/params.yaml to {file}"

"""``visor detect`` and ``visor protect``: faces are hidden in photos; broken files are skipped by name."""

import errno
import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from visor.cli import app
from visor.core import errors
from visor.data import images
from visor.data.scene_set import FACE
from visor.models.detectors import Detections
from visor.models.mtcnn import MTCNN
from visor.photos import files, hide, restarts

ASTRONAUT = data.astronaut()
CUT = ASTRONAUT[20:236, 120:310]


@pytest.fixture(autouse=True)
def threads_are_set_once(monkeypatch):
    """A process can set its threads only before TensorFlow has started."""
    monkeypatch.setattr("visor.models.training.configure_tensorflow", lambda compute, seed: None)


def save(path, image, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(path, **more)
    return path


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, (SystemExit, errors.UserError)):
        raise result.exception
    return result


def error_of(*arguments):
    result = run(*arguments)
    assert isinstance(result.exception, errors.UserError)
    return str(result.exception)


def test_the_astronaut_vanishes_from_the_png(tmp_path):
    source = save(tmp_path / "astronaut.png", ASTRONAUT)
    assert len(MTCNN().detect_faces(ASTRONAUT)) == 1
    done = run("protect", source, "--out", tmp_path / "out", "--eps", "8/255")
    assert done.exit_code == 0
    assert "vanished" in done.stdout
    hidden = np.asarray(Image.open(tmp_path / "out" / "astronaut.png"))
    assert hidden.shape == ASTRONAUT.shape
    assert 0 < np.abs(hidden.astype(int) - ASTRONAUT).max() <= 8
    assert MTCNN().detect_faces(hidden) == []
    assert (np.asarray(Image.open(source)) == ASTRONAUT).all()


@pytest.mark.slow
def test_a_crop_vanishes_by_default(tmp_path):
    done = run("protect", save(tmp_path / "crop.png", ASTRONAUT[:450, 60:460]), "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout.count("vanished") == 1
    assert "still found" not in done.stderr
    assert MTCNN().detect_faces(np.asarray(Image.open(tmp_path / "out/crop.png"))) == []


@pytest.fixture
def photo_folder(tmp_path):
    """A folder of mixed sizes: a photo turned by its EXIF, one without faces, and files that are no photos."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    save(tmp_path / "in/deep/turned.png", np.rot90(CUT), exif=exif)
    save(tmp_path / "in/plain.jpg", np.full((90, 130, 3), 80, np.uint8))
    whole = io.BytesIO()
    Image.fromarray(CUT).save(whole, "PNG")
    (tmp_path / "in/cut.png").write_bytes(whole.getvalue()[:3000])
    (tmp_path / "in/notes.txt").write_text("no photo")
    (tmp_path / "in/.hidden").write_text("hidden")
    return tmp_path / "in"


def test_a_folder_continues_past_broken_files(photo_folder, tmp_path):
    done = run(
        "protect", photo_folder, "--out", tmp_path / "out", "--iterations", 2, "--attempts", 1, "--mask", "faces"
    )
    assert done.exit_code == 1
    for name, reason in (("cut.png", "image file is truncated"), ("notes.txt", "not an image")):
        (line,) = (line for line in done.stderr.splitlines() if f"{name} was skipped: " in line)
        assert f"skipped: {reason}" in line
    assert "1 face\n" in done.stdout
    assert "no faces" in done.stdout
    hidden = Image.open(tmp_path / "out/deep/turned.png")
    assert np.asarray(hidden).shape == CUT.shape  # upright
    assert not hidden.getexif()
    changed = (np.asarray(hidden) != CUT).any(axis=2)
    assert changed.any()
    assert not changed[-30:].any()  # far from the face
    assert (
        np.asarray(Image.open(tmp_path / "out/plain.png")) == np.asarray(Image.open(photo_folder / "plain.jpg"))
    ).all()
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["plain.png", "turned.png"]


def test_detect_as_json(photo_folder):
    done = run("detect", photo_folder, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [len(faces) for faces in found.values()] == [1, 0]
    (face,) = found[str(photo_folder / "deep/turned.png")]
    x, y, w, h = face["box"]
    assert x < 224 - 120 < x + w
    assert y < 126 - 20 < y + h
    assert 0.8 < face["score"] <= 1


def test_nothing_is_overwritten(tmp_path):
    first = save(tmp_path / "a/face.png", CUT)
    second = save(tmp_path / "b/face.jpg", CUT)
    out = tmp_path / "out"
    assert "would both become" in error_of("protect", first, second, "--out", out)
    assert "would overwrite an input photo" in error_of("protect", first, "--out", tmp_path / "a", "--force")
    save(out / "face.png", CUT[:50])
    assert "exists" in error_of("protect", first, "--out", out)
    for folder in (second, second / "x"):
        assert f"{second} is a file" in error_of("protect", first, "--out", folder)
    assert np.asarray(Image.open(out / "face.png")).shape[0] == 50


def test_files_and_folders_of_one_name(tmp_path):
    save(tmp_path / "in/x.jpg", CUT)
    save(tmp_path / "in/x.png/y.jpg", CUT)
    message = error_of("protect", tmp_path / "in", "--out", tmp_path / "out")
    assert f"x.jpg and another photo need {tmp_path / 'out/x.png'} as file and as folder" in message
    assert not (tmp_path / "out").exists()
    (tmp_path / "other/x.png").mkdir(parents=True)
    assert "is a folder" in error_of("protect", tmp_path / "in/x.jpg", "--out", tmp_path / "other", "--force")
    assert "cannot be created" in error_of("protect", tmp_path / "in/x.jpg", "--out", tmp_path / ("o" * 300))
    with pytest.raises(errors.UserError, match=r"x.jpg/face.png cannot be written"):
        files.save_photo(CUT, tmp_path / "in/x.jpg/face.png")


def test_a_full_disk_is_not_taken_for_a_wrong_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "encode_png", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        files.save_photo(CUT, tmp_path / "face.png")
    assert caught.value.filename == str(tmp_path / "face.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("eps", ["0", "-1/255", "2", "0.5/255", "much", "1/0", "1e999", "1e999/1e999", "nan"])
def test_eps_out_of_range(tmp_path, eps):
    assert "--eps" in error_of("protect", save(tmp_path / "a.png", CUT), "--out", tmp_path / "o", "--eps", eps)


def test_wrong_detectors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = save(tmp_path / "a.png", CUT)
    assert "choose from blazeface, cascade" in error_of("detect", photo, "--detector", "yolo")
    assert "dvc repro" in error_of("detect", photo, "--detector", "ssd")
    assert "none.pb" in error_of("detect", photo, "--detector", "none.pb")
    assert "has no gradient" in error_of("protect", photo, "--out", "o", "--detector", "cascade")
    assert "FILE.pb" in error_of("detect", photo, "--detector", "frozen_graph")
    assert "none.pb" in error_of("detect", photo, "--detector", "none.pb", "--option", "path=other.pb")
    assert "NAME=VALUE" in error_of("detect", photo, "--option", "min_face_size")
    for value in ("nan", "-inf", "1e999"):
        assert "is not finite" in error_of("detect", photo, "--option", f"min_face_size={value}")
    message = error_of("protect", photo, "--out", "o", "--objective", "training_loss")
    assert message.startswith("loss training_loss needs ")
    assert "does not exist" in error_of("detect", tmp_path / "no.png")


class FakeDetector:
    """A detector with fixed detections: the boxes (k, 4) of its n-th call."""

    name = "fake"
    threshold = 0.5

    def __init__(self, *detections):
        self.detections = iter(detections)

    def detect(self, images):
        boxes = np.array(next(self.detections), np.float32).reshape(-1, 4)
        return [Detections(boxes, np.full(len(boxes), 0.9, np.float32))]


@pytest.fixture
def fake_detector(monkeypatch):
    """Let the commands use a fake detector, and no attack."""

    def use(*detections):
        monkeypatch.setattr("visor.photos.networks.open_detector", lambda *_: FakeDetector(*detections))
        monkeypatch.setattr("visor.photos.hide.compile_hiding_attack", lambda *_: None)
        monkeypatch.setattr("visor.photos.hide.hide_faces", lambda *_: [])

    before = signal.getsignal(signal.SIGTERM)
    yield use
    signal.signal(signal.SIGTERM, before)


def test_remaining_and_new_boxes_are_counted(tmp_path, fake_detector):
    face, gone, far, further = [10, 20, 30, 40], [100, 20, 30, 30], [50, 100, 20, 20], [120, 100, 9, 9]
    fake_detector([face, gone], [far, face, further], [], [far])
    one, two = save(tmp_path / "1.png", CUT), save(tmp_path / "2.png", CUT)
    done = run("protect", one, two, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "1.png: 2 faces, 2 new boxes\n" in done.stdout
    assert "2.png: no faces, 1 new box\n" in done.stdout
    assert done.stderr.splitlines()[-1] == "1 of 2 faces still found"
    fake_detector([gone], [])
    done = run("protect", one, "--out", tmp_path / "out", "--force")
    assert done.stdout.endswith("vanished\n")
    assert "still" not in done.stderr


def test_a_photo_named_twice_is_read_once(tmp_path, fake_detector):
    photo = save(tmp_path / "in/face.png", CUT)
    (tmp_path / "in/link.png").symlink_to(photo)
    fake_detector([[1, 2, 179.6, 3.3]], [], [])
    done = run("detect", photo, tmp_path / "in/../in/face.png", tmp_path / "in", "--json")
    assert json.loads(done.stdout) == {
        str(photo): [{"box": [1.0, 2.0, 179.6, 3.3], "score": 0.9}],
        str(tmp_path / "in/link.png"): [],
    }


def test_file_names_that_are_not_utf8(tmp_path, fake_detector):
    photo = save(tmp_path / os.fsdecode(b"b\xe9d.png"), CUT)
    fake_detector([], [], [])
    assert json.loads(run("detect", photo, "--json").stdout) == {str(photo): []}
    assert r"b\udce9d.png: no faces" in run("detect", photo).stdout
    fake_detector([], [])
    assert r"b\udce9d.png: no faces" in run("protect", photo, "--out", tmp_path / "out").stdout
    assert (tmp_path / "out" / photo.name).is_file()


def test_terminated_while_writing(tmp_path, fake_detector, monkeypatch):
    def write(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGTERM)

    photo = save(tmp_path / "face.png", CUT)
    fake_detector([])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the test's own process
    monkeypatch.setattr(Path, "write_bytes", write)
    assert run("protect", photo, "--out", tmp_path / "out").exit_code == 143
    assert list((tmp_path / "out").iterdir()) == []


def test_devices_and_pipes_are_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        assert f"{path} is not a file" in error_of("detect", path)


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm"])
def test_sixteen_bits_become_eight(tmp_path, ending):
    deep = np.random.default_rng(0).integers(0, 65536, (5, 9), dtype=np.uint16)
    deep[0, :3] = [0, 257 * 200, 65535]
    path = tmp_path / f"deep.{ending}"
    if ending == "pgm":
        path.write_bytes(b"P5 9 5 65535\n" + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(path)
    assert (images.read_image(path) == np.rint(deep / 257)[..., None]).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bits_are_rejected(tmp_path, kind):
    path = save(tmp_path / "deep.tiff", np.full((5, 9), 1000, kind))
    with pytest.raises(images.ImageDecodeError, match=r"deep\.tiff.*32-bit"):
        images.read_image(path)


def test_huge_photos_are_rejected(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (10_000, 6_000)).save(path)
    with pytest.raises(images.ImageDecodeError, match=r"huge\.png"):
        images.read_image(path)


def test_a_change_is_enlarged_and_bounded():
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    before = image.copy()
    change = np.zeros((3, 5, 3), np.float32)
    change[1, 2] = [9, -3, 0]
    changed = restarts.apply_perturbations(image, [restarts.RegionPerturbation(None, change)], 4 / 255)
    added = changed.astype(int) - image
    inside = added[10:20, 20:30]
    room = 255 - image[10:20, 20:30, 0].astype(int)
    assert (inside[..., 0] == np.minimum(4, room)).all()
    assert (inside[..., 1] == -np.minimum(3, image[10:20, 20:30, 1].astype(int))).all()
    added[10:20, 20:30] = 0
    assert not added.any()
    assert (image == before).all()


def test_sizes_are_padded_to_few_shapes():
    shapes = {hide._pad_image(np.zeros((h, w, 3), np.uint8)).shape for h in range(130, 193, 7) for w in (65, 100, 128)}
    assert shapes == {(192, 128, 3)}
    assert max(hide._reduce(np.zeros((900, 1601, 3), np.uint8), 640).shape) == round(1601 * 0.709**3)
    assert hide._reduce(ASTRONAUT, hide.HideSettings(0.1, 1).side) is ASTRONAUT
    boxes, kinds = hide._pad_boxes(np.ones((70, 4), np.float32))
    assert (boxes.shape, kinds.shape, (kinds == FACE).sum()) == ((1, 128, 4), (1, 128), 70)

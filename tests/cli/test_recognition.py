"""``visor crop``, ``visor identify``, ``visor impersonate``, ``visor dodge``: photos in, PNGs and a table out."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from tests.support import linear_recogniser
from visor.cli import face_table, recognition
from visor.core import errors
from visor.data import crops
from visor.data.crops import CropBox
from visor.models.recognisers import base, facenet
from visor.photos import evade, faces, files, identify, networks, outcome
from visor.photos.faces import Face, FaceSelector
from visor.photos.identify import RecognisedFace
from visor.photos.outcome import AttackGoal

ASTRONAUT = data.astronaut()
CUT = ASTRONAUT[20:236, 120:310]
SMALL = np.asarray(Image.fromarray(CUT).resize((132, 150)))  # MTCNN's time goes by the pixels

app = typer.Typer(pretty_exceptions_enable=False)
for command in (recognition.crop, recognition.identify, recognition.impersonate, recognition.dodge):
    app.command()(command)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """A process can set its threads only before TensorFlow has started; its signals are its own; MTCNN loads once."""
    finder = faces.face_finder() if not hasattr(one_process, "find") else one_process.find
    one_process.find = finder
    monkeypatch.setattr(faces, "face_finder", lambda: finder)
    monkeypatch.setattr("visor.models.training.configure_tensorflow", lambda compute, seed: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def opened(monkeypatch):
    """Let the commands open the linear recogniser, with or without classes."""

    def use(classes=True):
        monkeypatch.setattr(networks, "open_recogniser", lambda *_: linear_recogniser.linear(classes))

    return use


def save(path, image, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))).save(path, **more)
    return path


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, (SystemExit, errors.UserError)):
        raise result.exception
    return result


def error_of(*arguments):
    result = run(*arguments)
    assert isinstance(result.exception, errors.UserError), result.output
    return str(result.exception)


def embed_file(path):
    """Return the embedding of the largest face of a photo, computed independently of ``visor.photos``."""
    image = np.asarray(Image.open(path).convert("RGB"))
    face = one_process.find(image)[0]
    frame = crops.expand_box(face.box, 0.2, linear_recogniser.SHAPE[0] / linear_recogniser.SHAPE[1], face.angle)
    face_crop = crops.crop(image, frame, linear_recogniser.SHAPE[:2])
    return identify.embeddings(linear_recogniser.linear())(face_crop[None])[0]


def test_the_astronaut_impersonates_another_face(tmp_path, opened):
    opened()
    source = save(tmp_path / "astronaut.png", SMALL)
    target = save(tmp_path / "target.png", np.ascontiguousarray(SMALL[:, ::-1, ::-1]))
    options = (
        "impersonate",
        source,
        "--target",
        target,
        "--iterations",
        12,
        "--attempts",
        1,
        "--threshold",
        0.35,
        "--json",
    )
    (row,), again = (json.loads(run(*options, "--out", tmp_path / name).stdout) for name in ("out", "again"))
    png = tmp_path / "out/astronaut.png"
    assert png.read_bytes() == (tmp_path / "again/astronaut.png").read_bytes()
    assert again[0]["after"] == row["after"]
    assert row["before"] == pytest.approx(embed_file(source) @ embed_file(target), abs=1e-4)
    assert row["after"] == pytest.approx(embed_file(png) @ embed_file(target), abs=1e-4)
    assert row["after"] >= 0.35 > row["before"] + 0.1
    assert (row["verdict"], row["reached"]) == ("matched", True)
    moved = np.abs(np.asarray(Image.open(png)).astype(int) - SMALL)
    assert row["linf"] == moved.max() == 8
    assert not moved[-20:].any(), "the face alone changes"
    assert 0.7 < row["ssim"] < 1
    assert 25 < row["psnr"] < 45
    assert (np.asarray(Image.open(source)) == SMALL).all()
    assert [len(row[name]) for name in ("top_before", "top_after")] == [5, 5]


def test_dodging_prints_a_table_and_continues_past_broken_files(tmp_path, opened):
    opened(classes=False)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "in/Ann/Ann_0001.png", np.rot90(SMALL), exif=exif)
    (tmp_path / "in/Ann/Ann_0002.jpg").write_bytes(b"no photo")
    save(tmp_path / "in/plain.png", np.full((130, 140, 3), 80, np.uint8))
    options = ("--iterations", 6, "--attempts", 1, "--eps", "12/255", "--threshold", 0.95)
    done = run("dodge", tmp_path / "in", "--out", tmp_path / "out", *options)
    assert done.exit_code == 1
    assert "Ann_0002.jpg was skipped: not an image\n" in done.stderr
    assert "plain.png: no face found; pass --box x,y,w,h or choose another photo" in done.stderr
    assert "rendered faces only" in done.stderr
    head, line, row = done.stdout.splitlines()
    assert head.startswith("| photo | face | compared with | before | after | threshold | verdict |")
    assert line == "|" + "---|" * 9
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == ["1", "itself", "1.000"]
    assert float(cells[4]) < 0.95
    assert cells[5:7] == ["0.950", "not matched"]
    assert "attack failed" not in done.stderr
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["Ann_0001.png"]
    assert np.asarray(Image.open(tmp_path / "out/Ann/Ann_0001.png")).shape == SMALL.shape  # upright
    assert Image.open(tmp_path / "out/Ann/Ann_0001.png").info == {}, "no metadata"


@pytest.mark.parametrize(("command", "more"), [("dodge", ["--classes"]), ("impersonate", ["--target"])])
def test_classes(tmp_path, opened, command, more):
    opened()
    photo = save(tmp_path / "astronaut.png", SMALL)
    first, *_, last = json.loads(run("identify", photo, "--top", 6, "--json").stdout)[0]["top"]
    assert first[1] > last[1]
    more = [*more, last[0]] if command == "impersonate" else more
    options = ("--out", tmp_path / "out", "--eps", "40/255", "--iterations", 10, "--json")
    (row,) = json.loads(run(command, photo, *more, *options).stdout)
    assert row["target"] == (f"class {last[0]}" if command == "impersonate" else first[0])
    assert row["reached"] is True
    assert (row["top_after"][0][0] == last[0]) if command == "impersonate" else (row["top_after"][0][0] != first[0])
    (again,) = json.loads(run("identify", tmp_path / "out/astronaut.png", "--top", 5, "--json").stdout)
    assert again["top"] == row["top_after"]
    assert sum(value for _, value in row["top_before"]) <= 1 + 1e-5


def test_identify_compares_with_the_gallery(tmp_path, opened):
    opened(classes=False)
    photo = save(tmp_path / "grey.png", Image.fromarray(SMALL).convert("L"))
    assert "has no classes; pass people to compare with: --gallery" in error_of("identify", photo)
    save(tmp_path / "people/Eileen_Collins/Eileen_Collins_0001.png", SMALL)
    save(tmp_path / "people/Mirrored/Mirrored_0001.png", SMALL[:, ::-1, ::-1])
    done = run("identify", photo, "--gallery", tmp_path / "people", "--top", 1)
    assert done.exit_code == 0
    place, name = done.stdout.splitlines()
    assert place.startswith(f"{photo}, face 1, ")
    assert name.split()[:2] == ["1.", "Eileen_Collins"]
    assert float(name.split()[2]) > 0.8
    message = error_of(
        "impersonate", photo, "--target", "eileen colins", "--gallery", tmp_path / "people", "--out", tmp_path / "out"
    )
    assert message.endswith("; choose another name or photo; similar names: Eileen_Collins")
    save(tmp_path / "people/Eileen_Collins/turned.png", SMALL[::-1])
    (tmp_path / "people/Eileen_Collins/notes.txt").write_text("no photo")
    folder = tmp_path / "people/Eileen_Collins"
    options = ("--out", tmp_path / "out", "--iterations", 1, "--attempts", 1, "--method", "pgd", "--json")
    done = run("impersonate", photo, "--target", folder, *options)
    assert done.exit_code == 0
    assert json.loads(done.stdout)[0]["before"] > 0.8
    assert f"{folder / 'notes.txt'} was skipped: not an image\n" in done.stderr


def test_a_box_by_hand(tmp_path, opened):
    opened()
    noise = np.random.default_rng(0).integers(0, 256, (90, 80, 4), np.uint8)
    noise[..., 3] = 255
    photo = save(tmp_path / "noise.png", noise)
    options = ("dodge", photo, "--out", tmp_path / "out", "--box", "10,12.5,40,45", "--iterations", 3, "--json")
    (row,) = json.loads(run(*options).stdout)
    assert (row["box"], row["angle"], row["score"]) == ([10.0, 12.5, 40.0, 45.0], 0.0, None)
    changed = (np.asarray(Image.open(tmp_path / "out/noise.png")) != noise[..., :3]).any(axis=2)
    assert changed[20:50, 15:45].mean() > 0.9
    assert not changed[70:].any()
    assert not changed[:, 62:].any()
    (same,) = json.loads(run("identify", tmp_path / "out/noise.png", "--box", "10,12.5,40,45", "--json").stdout)
    assert same["top"] == row["top_after"]


def test_one_face_of_several(tmp_path, opened):
    opened()
    wide = np.full((170, 300, 3), 120, np.uint8)
    wide[10:160, 10:142] = SMALL
    wide[20:155, 170:289] = np.asarray(Image.fromarray(SMALL[:, ::-1]).resize((119, 135)))
    photo = save(tmp_path / "two.webp", wide, lossless=True)
    rows = json.loads(run("identify", photo, "--json", "--top", 1).stdout)
    assert [row["face"] for row in rows] == [1, 2]
    assert rows[0]["box"][0] < 150 < rows[1]["box"][0]
    options = ("dodge", photo, "--out", tmp_path / "out", "--face", 2, "--iterations", 2, "--attempts", 1, "--json")
    (row,) = json.loads(run(*options).stdout)
    assert row["face"] == 2
    changed = (np.asarray(Image.open(tmp_path / "out/two.png")) != wide).any(axis=(0, 2))
    assert changed[190:260].any()
    assert not changed[:160].any()
    cut = run("crop", photo, "--out", tmp_path / "faces", "--height", 55, "--width", 47)
    assert [line.split("/")[-1] for line in cut.stdout.splitlines()] == ["two.png", "two_face2.png"]
    crops_of = [np.asarray(Image.open(tmp_path / "faces" / name)).astype(int) for name in ("two.png", "two_face2.png")]
    assert crops_of[0].shape == (55, 47, 3)
    assert np.abs(crops_of[0] - crops_of[1][:, ::-1]).mean() < np.abs(crops_of[0] - crops_of[1]).mean() / 2
    assert "there is no --face 3, only 2" in run("identify", photo, "--face", 3).stderr


def test_a_box_at_the_edge(tmp_path, opened):
    """Less than SSIM's window of 11 pixels cannot be measured."""
    opened()
    noise = save(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    options = ("--margin", 0, "--iterations", 1, "--attempts", 1, "--method", "pgd", "--json")
    for name, box in {
        "left": "-9,10,12,12",
        "above": "10,-1,20,12",
        "right": "39,3,30,30",
        "out": "90,3,20,30",
    }.items():
        done = run("dodge", noise, "--out", tmp_path / name, f"--box={box}", *options)
        assert (done.exit_code, json.loads(done.stdout)) == (1, [])
        assert "noise.png: --box has less than 12 pixels a side within 50×40 pixels; correct it" in done.stderr
        assert list((tmp_path / name).iterdir()) == []
    (row,) = json.loads(run("dodge", noise, "--out", tmp_path / "in", "--box=-9,28,21,12", *options).stdout)
    assert row["ssim"] < 1
    assert (np.asarray(Image.open(tmp_path / "in/noise.png")) != np.asarray(Image.open(noise))).any()


def test_crops_overwrite_nothing(tmp_path):
    wide = np.full((170, 300, 3), 120, np.uint8)
    wide[10:160, 10:142] = SMALL
    wide[20:155, 170:289] = np.asarray(Image.fromarray(SMALL[:, ::-1]).resize((119, 135)))
    photo, out = save(tmp_path / "in/two.jpg", wide), tmp_path / "out"
    old = save(out / "two_face2.png", wide[:9])
    done = run("crop", photo, "--out", out)
    assert done.exit_code == 1
    assert f"{old} exists; pass another folder with --out, or overwrite it with --force\n" in done.stderr
    assert np.asarray(Image.open(old)).shape[0] == 9
    assert done.stdout == f"{photo} → {out / 'two.png'}\n"
    assert run("crop", photo, "--out", out, "--force").exit_code == 0
    assert np.asarray(Image.open(old)).shape == (160, 160, 3)

    other = save(tmp_path / "in/two_face2.png", SMALL)  # read, and where another's second face would go
    before = other.read_bytes()
    done = run("crop", photo, other, "--out", tmp_path / "in", "--force")
    assert "would overwrite an input photo" in str(done.exception)
    taken = save(tmp_path / "elsewhere/face.png", SMALL)
    (out / "two_face2.png").unlink()
    (out / "two_face2.png").symlink_to(taken)
    done = run("crop", photo, taken, "--out", out, "--force")
    assert done.exit_code == 1
    assert f"two_face2.png is an input photo or another face; rename {photo}\n" in done.stderr
    assert (other.read_bytes(), taken.read_bytes()) == (before, before)

    done = run("crop", photo, other, "--out", tmp_path / "both", "--force")
    assert done.exit_code == 1
    assert [line.partition(" → ")[0] for line in done.stdout.splitlines()] == [str(photo)] * 2
    assert f"another face; rename {other}\n" in done.stderr


def test_names_too_long_for_files(tmp_path, opened):
    opened()
    photo, name = save(tmp_path / "a.png", SMALL[:60]), "n" * 300
    for command, option in (("impersonate", "--target"), ("dodge", "--reference")):
        message = error_of(command, photo, "--out", tmp_path / "out", option, name)
        assert message == f"{option} {name} is neither a photo nor a known name; choose another name or photo"
    assert "is not a folder" in error_of("identify", photo, "--gallery", name)
    assert f"{name} does not exist; pass photo files" in error_of("identify", name)
    assert f"{name} does not exist" in error_of("dodge", name, "--out", tmp_path / "out", "--box", "1,2,30,30")


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "1,2,11,40", "nan,1,20,20", "0,0,inf,20", "1,2,20,20,5"])
def test_wrong_boxes(tmp_path, opened, box):
    opened()
    assert f"--box {box} is" in error_of("identify", save(tmp_path / "a.png", SMALL[:40]), "--box", box)


def test_wrong_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = save(tmp_path / "a.png", SMALL[:40])
    assert "--box works with a single photo; pass only one" in error_of("identify", photo, photo, "--box", "1,2,30,30")
    assert "choose from facenet" in error_of("identify", photo, "--recogniser", "arcface")
    monkeypatch.setenv("VISOR_NETWORKS", str(tmp_path / "networks"))
    published = ("identify", photo, "--recogniser", "dlib_resnet")
    assert "dlib_resnet is not here; run visor networks fetch dlib_resnet" in error_of(*published)
    assert "has weights of its own; leave out --weights" in error_of(*published, "--weights", photo)
    assert "dvc repro" in error_of("identify", photo)
    assert "apply only to published weights; add --weights" in error_of("identify", photo, "--labels", "names.txt")
    small = ("--option", "blocks=1,1,1", "--option", "width=4", "--option", "side=80")
    assert "nowhere.h5 does not exist" in error_of("identify", photo, "--weights", "nowhere.h5", *small)
    assert "widht" in error_of("identify", photo, "--weights", photo, "--option", "widht=3")
    assert "leave one of them out" in error_of("dodge", photo, "--out", "o", "--classes", "--reference", photo)
    assert "--eps 9 is out of range" in error_of("dodge", photo, "--out", "o", "--eps", 9)
    assert "would overwrite an input photo" in error_of("dodge", photo, "--out", tmp_path, "--force")
    assert not (tmp_path / "o").exists()
    monkeypatch.setattr(networks, "open_recogniser", lambda *_: linear_recogniser.linear(False))
    assert "omit --classes" in error_of("dodge", photo, "--out", "o", "--classes")
    assert list((tmp_path / "o").iterdir()) == []


def test_published_options_reach_the_network(monkeypatch):
    calls = []
    monkeypatch.setattr(networks.base, "load_published", lambda name, params: calls.append((name, params)))
    networks.open_recogniser("facenet", "file.h5", "ab", "names.txt", ["embedding=512", "blocks=1,2,1", "dropout=0.5"])
    ((name, params),) = calls
    assert (name, params.weights, params.sha256, params.labels) == ("facenet", "file.h5", "ab", "names.txt")
    assert params.options == {"embedding": 512, "blocks": [1, 2, 1], "dropout": 0.5}


def test_thresholds_are_measured_or_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default = networks.verification_threshold("facenet", False)
    assert (default[0], "published" in default[1]) == (0.6, True)
    by_detector = {
        "none": {"threshold_0.01": 0.3},
        "mtcnn": {"threshold_0.01": 0.41, "threshold_0.001": 0.52, "auc": 0.9},
    }
    for folder, metrics in (
        ("vgg_face", {"facenet": {"none": {"threshold_0.01": 0.7}}}),
        ("facenet", {"facenet": by_detector}),
    ):
        path = tmp_path / "metrics/recognition" / folder / "verification.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(metrics))
        found = networks.verification_threshold("facenet", False)
        assert found[0] == (0.7 if folder == "vgg_face" else 0.52)
        assert f"metrics/recognition/{folder}/verification.json" in found[1]
    assert "rate 0.001" in found[1]
    assert networks.verification_threshold("facenet", True)[0] == 0.6
    assert networks.verification_threshold("senet50", False)[0] == 0.5


def test_a_trained_recogniser_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = facenet.PUBLISHED_OPTIONS | {
        "input_size": 80,
        "width": 4,
        "blocks": [1, 1, 1],
        "embedding": 6,
        "num_classes": 2,
    }
    arguments["image_shape"] = (80, 80, 3)
    base.save(facenet.build(**arguments), arguments, ["ann", "bob"], tmp_path / "artifacts/recogniser/facenet")
    photo = save(tmp_path / "a.png", SMALL[:60])
    done = run("identify", photo, "--box", "30,10,40,45", "--json")
    assert sorted(name for name, _ in json.loads(done.stdout)[0]["top"]) == ["ann", "bob"]
    assert done.stderr.startswith("facenet is the small network trained by `dvc repro`")


def recognised(embedding, probabilities=None):
    return RecognisedFace(Face((0, 0, 9, 9)), CropBox(0, 0, 9, 9), np.array(embedding), probabilities)


@pytest.mark.parametrize(
    ("name", "found", "after", "label", "reached"),
    [
        ("impersonate", True, 0.5, "matched", True),
        ("impersonate", True, 0.49, "not matched", False),
        ("impersonate", False, 0.9, "not found", False),
        ("dodge", True, 0.5, "matched", False),
        ("dodge", True, 0.49, "not matched", True),
        ("dodge", False, 0.9, "not found", True),
        ("target_class", True, 0.4, "not matched", False),
        ("target_class", True, 0.6, "matched", True),
        ("misclassify", True, 0.4, "not matched", True),
        ("misclassify", False, 0.6, "not found", True),
    ],
)
def test_outcome_labels(name, found, after, label, reached):
    by_class = name in ("target_class", "misclassify")
    face = recognised([after, 0.0], np.array([1 - after, after]))
    goal = AttackGoal(name, np.int32(1) if by_class else np.array([1.0, 0.0]), 0.5)
    result = outcome.recogniser_outcome(1, "facenet", goal, face, face, found)
    assert result.score_before == result.score_after == pytest.approx(after)
    assert result.label == label
    assert outcome.is_success(goal, result) is reached


def test_the_best_of_several_attempts_is_kept(monkeypatch, tmp_path):
    """Attempts write their number + 1 into one pixel each; the similarity of each pixel value is in a table."""
    similarity = {0: 0.0, 1: 0.3, 2: 0.2, 3: 0.8, 4: 0.9, 5: 0.1}  # with 4 the face is not found

    def recognise(recogniser, image, places):
        return [
            recognised([similarity[int(image[0, int(face.box[0]), 0])], 0.0])._replace(face=face) for face in places
        ]

    def find(image):
        return [face for face in detected if image[0, int(face.box[0]), 0] != 4]

    def apply(image, changes, eps):
        result = image.copy()
        for column, value in changes:
            result[0, column, 0] = value
        return result

    def attack(image, frame, target, attempt):
        attempts_made.append((int(target[1]), attempt))
        return int(target[1]), attempt + 1

    detected = [Face((3.0, 0, 40, 40)), Face((70.0, 0, 40, 40))]
    monkeypatch.setattr(evade, "recognise_faces", recognise)
    monkeypatch.setattr(evade, "apply_perturbations", apply)
    monkeypatch.setattr(evade, "compile_evasion_attack", lambda *_: attack)
    recogniser = identify.PhotoRecogniser(linear_recogniser.linear(), find, 0.2, None, None)
    photo = files.PhotoFile(save(tmp_path / "a.png", np.zeros((50, 120, 3), np.uint8)), Path("a"))
    for threshold, attempts, tries, pixel in ((0.7, 5, 3, 3), (0.25, 5, 1, 1), (0.95, 2, 2, 1), (0.96, 5, 5, 3)):
        attempts_made = []

        def goal(face, threshold=threshold):
            return AttackGoal("impersonate", np.array([1.0, face.face.box[0]]), threshold)

        settings = evade.EvadeSettings(0.1, 1, attempts=attempts)
        (result,) = evade.evade_photos(
            recogniser, goal, settings, [photo], tmp_path / f"{threshold}", FaceSelector(), None
        )
        assert (result.saved[0, [3, 70], 0] == pixel).all()
        assert attempts_made == [(column, number) for number in range(tries) for column in (3, 70)]


def test_tables():
    assert face_table.rank_names(["a", "b", "c"], np.array([0.2, 0.5, 0.5])) == [("b", 0.5), ("c", 0.5), ("a", 0.2)]
    rows = face_table.ranking_table([("a", 0.5), ("b", 0.25)], [("b", 0.75), ("a", 0.125)]).splitlines()
    assert rows[2:] == ["| 1 | a | 0.500 | b | 0.750 |", "| 2 | b | 0.250 | a | 0.125 |"]
    line = dict.fromkeys(face_table.COLUMNS) | {"photo": "a|b", "before": 0.1234, "psnr": 31.26}
    cells = face_table.face_table([line]).splitlines()[2]
    assert cells.startswith("| a\\|b | – |")
    assert "| 0.123 |" in cells
    assert cells.endswith("| 31.3 |")

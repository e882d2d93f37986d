"""Clean and attacked photos compared by a service: by name, over real HTTP, continued from cached answers."""

import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.support.mock_service import BLUE, GREEN, KEY, MIXED, RED, app, draw_faces, encode_faces, running
from visor.core import errors
from visor.core.errors import UserError
from visor.core.tables import format_interval
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.evaluation.metrics import wilson_interval
from visor.services import photo_sets, transfer
from visor.services.answer_cache import QueryCounter
from visor.services.base import Comparison
from visor.services.mock_client import KEY_VARIABLE

TARGET = draw_faces((RED, 48, 48))
CLEAN = {
    "ann": draw_faces((GREEN, 32, 48)),
    "below/bob": draw_faces((BLUE, 32, 32)),
    "cleo": draw_faces((RED, 48, 32)),
    "dan": draw_faces((GREEN, 48, 32)),
}
ATTACKED = {
    "ann": draw_faces((MIXED, 32, 48)),
    "below/bob": draw_faces((GREEN, 32, 32)),
    "cleo": draw_faces((MIXED, 48, 32)),
    "dan": draw_faces(),
}


def write(folder, photos, suffix=".png"):
    for name, content in photos.items():
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "target.png").write_bytes(TARGET)
    write(tmp_path / "clean", CLEAN, ".PNG")
    write(tmp_path / "attacked", ATTACKED)
    (tmp_path / "attacked/table.json").write_text("{}")
    return ["--clean", "clean", "--attacked", "attacked", "--target", "target.png"]


def query(*arguments, service="mock"):
    result = CliRunner().invoke(app, ["query", "--service", service, *map(str, arguments)])
    if result.exception and not isinstance(result.exception, (SystemExit, UserError, KeyboardInterrupt)):
        raise result.exception
    return result


def test_a_transfer_run_over_http(folders, tmp_path):
    with running() as url:
        result = query(*folders, "--url", url, "--out", "numbers.json")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "numbers.json").read_text())
    photos = metrics.pop("by_photo")
    assert list(photos) == sorted(CLEAN)
    assert photos["ann"] == {"clean": pytest.approx(50, abs=3), "attacked": pytest.approx(85.4, abs=3)}
    assert photos["below/bob"] == {"clean": pytest.approx(50, abs=3), "attacked": pytest.approx(50, abs=3)}
    assert photos["dan"]["attacked"] is None
    low, high = wilson_interval(1, 3)
    assert metrics["clean"]["past"] == 0.25
    assert metrics["attacked"]["past"] == 0.5
    assert metrics["attacked"]["not_found"] == 1
    assert metrics["success_of"] == 3
    assert [metrics[f"success{end}"] for end in ("", "_low", "_high")] == pytest.approx([1 / 3, low, high], rel=1e-5)
    assert (metrics["asked"], metrics["remembered"]) == (8, 0)
    assert f"| dan | {photos['dan']['clean']:.1f} | no face (target) | no → no |" in result.output
    assert "| attacked | 4 |" in result.output
    assert "queries: 8 sent, 0 cached" in result.output
    assert f"impersonate: {format_interval(1 / 3, low, high)} of 3 photos without success when clean" in result.output


def test_dodging_succeeds_below_the_threshold(folders):
    with running() as url:
        result = query(*folders, "--url", url, "--goal", "dodge", "--threshold", 49, "--out", "numbers.json")
    assert result.exit_code == 0, result.output
    metrics = json.loads(Path("numbers.json").read_text())
    assert (metrics["success_of"], metrics["success"]) == (4, 0.25)  # dan's face is hidden


def test_a_run_continues_after_its_budget(folders, tmp_path):
    with running() as url:
        first = query(*folders, "--url", url, "--budget", 5, "--out", "part.json")
        assert isinstance(first.exception, UserError)
        assert "all 5 queries of --budget are used" in str(first.exception)
        assert json.loads((tmp_path / "part.json").read_text())["photos"] == 2
        second = query(*folders, "--url", url, "--out", "whole.json")
        third = query(*folders, "--url", url)
    assert "queries: 3 sent, 5 cached" in second.output
    assert "queries: 0 sent, 8 cached" in third.output
    assert json.loads((tmp_path / "whole.json").read_text())["photos"] == 4


def test_the_budget_of_the_service_ends_a_run(folders):
    with running(budget=3) as url:
        result = query(*folders, "--url", url)
    assert isinstance(result.exception, UserError)
    assert "query budget of 3 exhausted for this key (402)" in str(result.exception)
    assert "queries: 4 sent, 0 cached" in result.output
    assert result.output.count("no → yes") == 1


def test_an_interrupted_run_reports_its_answers(folders, monkeypatch):
    calls = []

    def encoder(image):
        calls.append(1)
        return encode_faces(image)

    compare_all = transfer.compare_all

    def interrupted(*arguments):
        for number, result in enumerate(compare_all(*arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    with running(encoder) as url:
        monkeypatch.setattr(transfer, "compare_all", interrupted)
        stopped = query(*folders, "--url", url)
        monkeypatch.setattr(transfer, "compare_all", compare_all)
        assert stopped.exit_code != 0
        assert stopped.output.count("| ann |") == 1
        before = len(calls)
        result = query(*folders, "--url", url)
    assert "queries: 2 sent, 6 cached" in result.output
    assert before == 12
    assert len(calls) == 16


def test_rejected_images_are_named(folders, tmp_path):
    (tmp_path / "attacked/cleo.png").write_bytes(b"not an image")
    with running() as url:
        result = query(*folders, "--url", url)
    assert result.exit_code == 1
    assert "error: cleo was rejected: target cannot be read as an image (not an image)" in result.output
    assert "| attacked | 3 |" in result.output


def test_a_target_without_a_face_ends_the_run(folders, tmp_path):
    (tmp_path / "target.png").write_bytes(draw_faces())
    with running() as url:
        result = query(*folders, "--url", url)
    assert "target.png: the service finds no face in the target" in str(result.exception)


def test_a_target_for_each_photo(folders, tmp_path):
    targets = write(tmp_path / "targets", CLEAN | {"dan": draw_faces()}, ".png")
    with running() as url:
        result = query(*folders[:4], "--target", targets, "--url", url)
        (targets / "ann.png").unlink()
        missing = query(*folders[:4], "--target", targets, "--url", url)
    assert "error: dan was skipped: the service finds no face in its target" in result.output
    assert "| clean | 3 | 100.0 | 100.0%" in result.output
    assert "targets has no photo ann" in str(missing.exception)


@pytest.mark.parametrize("option", ["--target", "--clean", "--attacked"])
def test_missing_files(folders, option):
    result = query(*folders, option, "nowhere.png", "--url", "http://127.0.0.1:9")
    assert str(result.exception).startswith("nowhere.png does not exist; pass a photo")


def test_the_service_has_no_default(folders):
    result = CliRunner().invoke(app, ["query", *folders])
    assert result.exit_code == 2
    assert "--service" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "clean"], "--out clean is a folder; pass a file"),
        (["--out", "target.png/numbers.json"], "--out: target.png cannot be created (File exists); pass another"),
        (["--answers", "target.png"], "--answers: target.png cannot be created (File exists); pass another"),
        (
            ["--answers", "target.png/kept"],
            "--answers: target.png/kept cannot be created (Not a directory); pass another",
        ),
    ],
)
def test_outputs_are_checked_before_the_first_query(folders, monkeypatch, arguments, message):
    opened = []
    monkeypatch.setattr("visor.services.open_service", lambda *_: opened.append(1))
    result = query(*folders, *arguments)
    assert str(result.exception) == message
    assert isinstance(result.exception, UserError)
    assert not opened


def test_photos_of_one_name(tmp_path):
    write(tmp_path, {"a": CLEAN["ann"], ".hidden/b": CLEAN["ann"]})
    assert photo_sets.open_photo_set(tmp_path, 0.0).names == ("a",)
    write(tmp_path, {"a": CLEAN["ann"]}, ".jpg")
    with pytest.raises(UserError, match=r"two photos have the same name: .*a\.jpg, .*a\.png; rename one"):
        photo_sets.open_photo_set(tmp_path, 0.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no photo in"):
        photo_sets.open_photo_set(tmp_path / "empty", 0.0)


def decode(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_face_set_is_a_photo_set(faces):
    photos = photo_sets.open_photo_set(faces.path, 0.5)
    with h5py.File(faces.path.with_name("evil.h5"), "w") as file:
        file.create_dataset("images", (1, 9, 9, 3), "u1", external=[(str(faces.path), 0, 243)])
    with pytest.raises(UserError, match="images keeps its numbers in another file"):
        photo_sets.open_photo_set(faces.path.with_name("evil.h5"), 0.0)
    assert photos.names == tuple(map(str, faces.rows.tolist()))
    padded = decode(photo_sets.matching_photo(photos, "7"))
    assert padded.shape == (34 * 2, 29 + 2 * 14, 3)
    np.testing.assert_array_equal(padded[17:-17, 14:-14], faces.images[7])
    assert (padded[:17] == padded[0, 0]).all()
    np.testing.assert_array_equal(
        decode(photo_sets.matching_photo(photo_sets.open_photo_set(faces.path, 0.0), "7")), faces.images[7]
    )


def test_targets_by_person(faces):
    rows = ["0", "2", "30"]  # of ann, ann and bob, who begins at 23
    firsts = {None: [1, 1, 23], "cleo": [42, 42, 42], "ann": [1, 1, 1]}
    tables = [({"0": "bob", "2": "dan", "30": "ann"}, [23, 73, 1])]
    for target, indices in [*firsts.items(), *tables]:
        photos = photo_sets.person_photos(faces.path, rows, target, 0.0)
        for row, index in zip(rows, indices, strict=True):
            np.testing.assert_array_equal(decode(photo_sets.matching_photo(photos, row)), faces.images[index])
    with pytest.raises(UserError, match="has no row 90"):
        photo_sets.person_photos(faces.path, ["90"], None, 0.0)
    with pytest.raises(UserError, match="has no further face of eve, the target of row 0"):
        photo_sets.person_photos(faces.path, rows, "eve", 0.0)


def test_an_attacked_face_set_over_http(tmp_path, monkeypatch):
    """Six rectangles of two people; the attack swaps red and green."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.chdir(tmp_path)
    colours = np.array([RED, GREEN], np.uint8)
    rows = np.arange(6, dtype=np.int32)
    flat = np.ones((1, 32, 48, 1), np.uint8)

    def save(name, rows, shown):
        block = FaceBatch(flat * colours[shown][:, None, None], rows % 2, rows, rows)
        write_faces(tmp_path / name, [block], (32, 48, 3), ["red", "green"], "test", "none")

    save("clean.h5", rows, rows % 2)
    save("attacked.h5", rows[2:5], 1 - rows[2:5] % 2)
    (tmp_path / "targets.csv").write_text("row,more,target\n2,x,green\n3,x,red\n4,x,green\n")
    arguments = ["--clean", "clean.h5", "--attacked", "attacked.h5", "--border", 0, "--out", "out.json", "--force"]
    with running() as url:
        for options, goal, success in (
            ([], "dodge", 1),
            (["--target", "targets.csv"], "impersonate", 1),
            (["--target", "green"], "impersonate", 1),
            (["--target", "red"], "dodge", 1),
        ):
            result = query(*arguments, *options, "--goal", goal, "--url", url)
            assert result.exit_code == 0, (result.output, result.exception)
            assert json.loads((tmp_path / "out.json").read_text())["success"] == success
        assert "--target is missing" in str(query(*arguments, "--url", url).exception)
        (tmp_path / "targets.csv").write_text("rows,target\n2,green\n")
        result = query(*arguments, "--target", "targets.csv", "--url", url)
        assert "is not a table with columns row and target" in str(result.exception)
        (tmp_path / "targets.csv").write_text("row,target\n2,green\n")
        result = query(*arguments, "--target", "targets.csv", "--url", url)
        assert str(result.exception) == "targets.csv has no line for row 3; add it"
    assert len(open_faces(tmp_path / "clean.h5")) == 6


def test_metrics_without_results():
    metrics = transfer.summarise_transfer([], "impersonate", 50, QueryCounter())
    assert (metrics["success"], metrics["success_low"], metrics["success_high"]) == (None, 0.0, 1.0)
    assert metrics["clean"] == {"past": None, "past_low": 0.0, "past_high": 1.0, "similarity": None, "not_found": 0}
    assert "| clean | 0 | – | – | 0 |" in transfer.transfer_table([], metrics)


def test_the_threshold_itself_is_a_match():
    lines = [transfer.PhotoResult("a", Comparison(49.9), Comparison(50.0))]
    assert transfer.summarise_transfer(lines, "impersonate", 50.0, QueryCounter())["success"] == 1
    assert transfer.summarise_transfer(lines, "impersonate", 50.1, QueryCounter())["success"] == 0


def test_the_mock_service_needs_keys(monkeypatch):
    monkeypatch.delenv("VISOR_MOCK_KEYS", raising=False)
    result = CliRunner().invoke(app, ["mock-service", "--port", "0"])
    assert "VISOR_MOCK_KEYS is not set" in str(result.exception)
    assert isinstance(result.exception, errors.UserError)

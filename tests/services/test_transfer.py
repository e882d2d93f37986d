"""Clean and attacked photos shown to a service: by name, over real HTTP, resumed without paying twice."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from tests.services.test_mock_service import BLUE, GREEN, KEY, MIXED, RED, painting, running, see
from visor.cli import services
from visor.core import errors
from visor.core.errors import UserError
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.evaluation.metrics import wilson_interval
from visor.services import photo_sets, transfer
from visor.services.answer_cache import QueryCounter
from visor.services.base import Comparison
from visor.services.mock_client import KEY_VARIABLE as VARIABLE

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(services.query)
app.command("range")(services.mock_service)

TARGET = painting((RED, 48, 48))
CLEAN = {
    "ann": painting((GREEN, 32, 48)),
    "below/bob": painting((BLUE, 32, 32)),
    "cleo": painting((RED, 48, 32)),
    "dan": painting((GREEN, 48, 32)),
}
ATTACKED = {
    "ann": painting((MIXED, 32, 48)),
    "below/bob": painting((GREEN, 32, 32)),
    "cleo": painting((MIXED, 48, 32)),
    "dan": painting(),
}


def write(folder, photos, ending=".png"):
    for name, content in photos.items():
        path = folder / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "target.png").write_bytes(TARGET)
    write(tmp_path / "clean", CLEAN, ".PNG")
    write(tmp_path / "attacked", ATTACKED)
    (tmp_path / "attacked/table.json").write_text("{}")
    return ["--clean", "clean", "--attacked", "attacked", "--target", "target.png"]


def query(*words, service="range"):
    done = CliRunner().invoke(app, ["query", "--service", service, *map(str, words)])
    if done.exception and not isinstance(done.exception, (SystemExit, UserError, KeyboardInterrupt)):
        raise done.exception
    return done


def test_a_transfer_run_over_http(folders, tmp_path):
    with running() as url:
        done = query(*folders, "--url", url, "--out", "numbers.json")
    assert done.exit_code == 0, done.output
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    photos = numbers.pop("by_photo")
    assert list(photos) == sorted(CLEAN)
    assert photos["ann"] == {"clean": pytest.approx(50, abs=3), "attacked": pytest.approx(85.4, abs=3)}
    assert photos["below/bob"] == {"clean": pytest.approx(50, abs=3), "attacked": pytest.approx(50, abs=3)}
    assert photos["dan"]["attacked"] is None
    low, high = wilson_interval(1, 3)
    assert numbers["clean"]["past"] == 0.25
    assert numbers["attacked"]["past"] == 0.5
    assert numbers["attacked"]["not_found"] == 1
    assert numbers["success_of"] == 3
    assert [numbers[f"success{end}"] for end in ("", "_low", "_high")] == pytest.approx([1 / 3, low, high], rel=1e-5)
    assert (numbers["asked"], numbers["remembered"]) == (8, 0)
    assert f"| dan | {photos['dan']['clean']:.1f} | no face (target) | no → no |" in done.output
    assert "| attacked | 4 |" in done.output
    assert "queries: 8 asked, 0 remembered" in done.output
    assert (
        f"impersonate: 33.3 % ({100 * low:.1f} to {100 * high:.1f}) of 3 that had not succeeded unattacked"
        in done.output
    )


def test_dodging_is_the_other_way_round(folders):
    with running() as url:
        done = query(*folders, "--url", url, "--goal", "dodge", "--threshold", 49, "--out", "numbers.json")
    assert done.exit_code == 0, done.output
    numbers = json.loads(Path("numbers.json").read_text())
    assert (numbers["success_of"], numbers["success"]) == (4, 0.25)  # dan's face is hidden


def test_out_of_budget_and_on_again(folders, tmp_path):
    with running() as url:
        first = query(*folders, "--url", url, "--budget", 5, "--out", "part.json")
        assert isinstance(first.exception, UserError)
        assert "the 5 queries of --budget are used up" in str(first.exception)
        assert json.loads((tmp_path / "part.json").read_text())["photos"] == 2
        second = query(*folders, "--url", url, "--out", "whole.json")
        third = query(*folders, "--url", url)
    assert "queries: 3 asked, 5 remembered" in second.output
    assert "queries: 0 asked, 8 remembered" in third.output
    assert json.loads((tmp_path / "whole.json").read_text())["photos"] == 4


def test_the_ranges_own_budget_ends_a_run(folders):
    with running(budget=3) as url:
        done = query(*folders, "--url", url)
    assert isinstance(done.exception, UserError)
    assert "answers no more queries of this key (402)" in str(done.exception)
    assert "queries: 4 asked, 0 remembered" in done.output
    assert done.output.count("no → yes") == 1


def test_an_interrupted_run_leaves_what_was_answered(folders, monkeypatch):
    calls = []

    def look(picture):
        calls.append(1)
        return see(picture)

    ask = transfer.compare_all

    def interrupted(*words):
        for number, line in enumerate(ask(*words)):
            if number == 2:
                raise KeyboardInterrupt
            yield line

    with running(look) as url:
        monkeypatch.setattr(transfer, "compare_all", interrupted)
        stopped = query(*folders, "--url", url)
        monkeypatch.setattr(transfer, "compare_all", ask)
        assert stopped.exit_code != 0
        assert stopped.output.count("| ann |") == 1
        seen = len(calls)
        done = query(*folders, "--url", url)
    assert "queries: 2 asked, 6 remembered" in done.output
    assert seen == 12
    assert len(calls) == 16


def test_refused_pictures_are_named_and_the_rest_goes_on(folders, tmp_path):
    (tmp_path / "attacked/cleo.png").write_bytes(b"no picture")
    with running() as url:
        done = query(*folders, "--url", url)
    assert done.exit_code == 1
    assert "error: cleo is refused: target cannot be read as an image (not an image)" in done.output
    assert "| attacked | 3 |" in done.output


def test_a_target_without_a_face_ends_the_run_at_once(folders, tmp_path):
    (tmp_path / "target.png").write_bytes(painting())
    with running() as url:
        done = query(*folders, "--url", url)
    assert "target.png: the service finds no face in the target" in str(done.exception)


def test_a_target_for_each_photo(folders, tmp_path):
    targets = write(tmp_path / "targets", CLEAN | {"dan": painting()}, ".png")
    with running() as url:
        done = query(*folders[:4], "--target", targets, "--url", url)
        (targets / "ann.png").unlink()
        lacking = query(*folders[:4], "--target", targets, "--url", url)
    assert "error: dan is left out: the service finds no face in its target" in done.output
    assert "| clean | 3 | 100.0 | 100.0 %" in done.output
    assert "targets has no picture ann" in str(lacking.exception)


@pytest.mark.parametrize("option", ["--target", "--clean", "--attacked"])
def test_what_is_not_there(folders, option):
    done = query(*folders, option, "nowhere.png", "--url", "http://127.0.0.1:9")
    assert str(done.exception).startswith("nowhere.png does not exist; name a photo")


def test_nothing_is_sent_unless_a_service_is_named(folders):
    done = CliRunner().invoke(app, ["query", *folders])
    assert done.exit_code == 2
    assert "--service" in done.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "clean"], "--out clean is a folder; name the JSON file to write"),
        (["--out", "target.png/numbers.json"], "--out: target.png cannot be made (File exists); name another"),
        (["--answers", "target.png"], "--answers: target.png cannot be made (File exists); name another"),
        (["--answers", "target.png/kept"], "--answers: target.png/kept cannot be made (Not a directory); name another"),
    ],
)
def test_what_cannot_be_written_is_told_before_anybody_is_asked(folders, monkeypatch, words, sentence):
    asked = []
    monkeypatch.setattr("visor.services.open_service", lambda *_: asked.append(1))
    done = query(*folders, *words)
    assert str(done.exception) == sentence
    assert isinstance(done.exception, UserError)
    assert not asked


def test_photos_of_one_name(tmp_path):
    write(tmp_path, {"a": CLEAN["ann"], ".hidden/b": CLEAN["ann"]})
    assert photo_sets.open_photo_set(tmp_path, 0.0).names == ("a",)
    write(tmp_path, {"a": CLEAN["ann"]}, ".jpg")
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png go by one name"):
        photo_sets.open_photo_set(tmp_path, 0.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no photo in"):
        photo_sets.open_photo_set(tmp_path / "empty", 0.0)


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_face_set_is_an_album(faces):
    album = photo_sets.open_photo_set(faces.path, 0.5)
    assert album.names == tuple(map(str, faces.rows.tolist()))
    framed = pixels(photo_sets.matching_photo(album, "7"))
    assert framed.shape == (34 * 2, 29 + 2 * 14, 3)
    np.testing.assert_array_equal(framed[17:-17, 14:-14], faces.images[7])
    assert (framed[:17] == framed[0, 0]).all()
    np.testing.assert_array_equal(
        pixels(photo_sets.matching_photo(photo_sets.open_photo_set(faces.path, 0.0), "7")), faces.images[7]
    )


def test_targets_by_person(faces):
    rows = ["0", "2", "30"]  # of ann, ann and bob, who begins at 23
    firsts = {None: [1, 1, 23], "cleo": [42, 42, 42], "ann": [1, 1, 1]}
    tables = [({"0": "bob", "2": "dan", "30": "ann"}, [23, 73, 1])]
    for wanted, places in [*firsts.items(), *tables]:
        album = photo_sets.person_photos(faces.path, rows, wanted, 0.0)
        for row, place in zip(rows, places, strict=True):
            np.testing.assert_array_equal(pixels(photo_sets.matching_photo(album, row)), faces.images[place])
    with pytest.raises(UserError, match="has no row 90"):
        photo_sets.person_photos(faces.path, ["90"], None, 0.0)
    for wanted in ("eve", {"2": "ann"}):
        with pytest.raises(UserError, match=r"has no further face of \w+, the target of row 0"):
            photo_sets.person_photos(faces.path, rows, wanted, 0.0)


def test_a_fooled_face_set_over_http(tmp_path, monkeypatch):
    """Six drawn squares of two people; the attack turns red into green and back."""
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.chdir(tmp_path)
    colours = np.array([RED, GREEN], np.uint8)
    numbers = np.arange(6, dtype=np.int32)
    flat = np.ones((1, 32, 48, 1), np.uint8)

    def save(name, rows, shown):
        block = FaceBatch(flat * colours[shown][:, None, None], rows % 2, rows, rows)
        write_faces(tmp_path / name, [block], (32, 48, 3), ["red", "green"], "test", "none")

    save("clean.h5", numbers, numbers % 2)
    save("fooled.h5", numbers[2:5], 1 - numbers[2:5] % 2)
    (tmp_path / "targets.csv").write_text("row,more,target\n2,x,green\n3,x,red\n4,x,green\n")
    words = ["--clean", "clean.h5", "--attacked", "fooled.h5", "--border", 0, "--out", "out.json"]
    with running() as url:
        for more, goal, success in (
            ([], "dodge", 1),
            (["--target", "targets.csv"], "impersonate", 1),
            (["--target", "green"], "impersonate", 1),
            (["--target", "red"], "dodge", 1),
        ):
            done = query(*words, *more, "--goal", goal, "--url", url)
            assert done.exit_code == 0, (done.output, done.exception)
            assert json.loads((tmp_path / "out.json").read_text())["success"] == success
        assert "--target is missing" in str(query(*words, "--url", url).exception)
        (tmp_path / "targets.csv").write_text("rows,target\n2,green\n")
        done = query(*words, "--target", "targets.csv", "--url", url)
        assert "no table with columns row and target" in str(done.exception)
    assert len(open_faces(tmp_path / "clean.h5")) == 6


def test_numbers_of_nothing_are_unknown():
    numbers = transfer.summarise_transfer([], "impersonate", 50, QueryCounter())
    assert (numbers["success"], numbers["success_low"], numbers["success_high"]) == (None, 0.0, 1.0)
    assert numbers["clean"] == {"past": None, "past_low": 0.0, "past_high": 1.0, "similarity": None, "not_found": 0}
    assert "| clean | 0 | – | – (0.0 to 100.0) | 0 |" in transfer.table([], numbers)


def test_the_threshold_itself_is_past():
    lines = [transfer.PhotoResult("a", Comparison(49.9), Comparison(50.0))]
    assert transfer.summarise_transfer(lines, "impersonate", 50.0, QueryCounter())["success"] == 1
    assert transfer.summarise_transfer(lines, "impersonate", 50.1, QueryCounter())["success"] == 0


def test_a_range_needs_keys_and_a_free_port(monkeypatch):
    monkeypatch.delenv("VISOR_RANGE_KEYS", raising=False)
    done = CliRunner().invoke(app, ["range", "--port", "0"])
    assert "VISOR_RANGE_KEYS is not set" in str(done.exception)
    assert isinstance(done.exception, errors.UserError)

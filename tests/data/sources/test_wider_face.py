"""WIDER FACE as it is published, and the mistakes that its files may hold."""

import errno
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.project import ROOT
from visor.core import params
from visor.core.errors import UserError
from visor.data.archives import SkippedFile
from visor.data.images import ImageDecodeError
from visor.data.scene_set import FACE, IGNORE, SETS, open_scenes
from visor.data.sources.scene_ingest import ingest_scenes
from visor.data.sources.wider_face import WiderFaceSettings, read_annotations, read_photo_scene, tasks

REAL = ROOT.parent / "shared" / "data" / "wider_face"
TRAIN = """\
0--Parade/one.jpg
3
10 20 30 40 1 0 1 0 2 1
-5 70 20 25 0 1 0 0 0 0
110 -8 40 20 0 0 0 1 0 0
0--Parade/none.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/flat.jpg
2
5 6 0 9 2 0 0 0 0 0
300 6 7 9 2 0 0 0 0 0
"""
VAL = """\
2--Demonstration/large.jpg
1
100 50 200 100 0 0 0 0 0 0
0--Parade/last.jpg
1
1 2 3 4 0 0 0 0 0 0
"""
ANNOTATIONS = [f"wider_face_split/wider_face_{part}_bbx_gt.txt" for part in ("train", "val")]
SHAPES = {  # width, height
    "WIDER_train/images/0--Parade/one.jpg": (120, 90),
    "WIDER_train/images/0--Parade/none.jpg": (61, 70),
    "WIDER_train/images/1--Handshaking/flat.jpg": (80, 75),
    "WIDER_val/images/2--Demonstration/large.jpg": (400, 260),
    "WIDER_val/images/0--Parade/last.jpg": (64, 66),
}


def settings(side=200, train=3, validation=1, test=1, max_broken=0) -> params.SceneParams:
    return params.SceneParams(
        source="x", max_side=side, train=train, validation=validation, test=test, max_broken=max_broken
    )


@pytest.fixture
def tree(tmp_path):
    """The published layout: five photographs of one colour each."""
    for number, (name, size) in enumerate(SHAPES.items()):
        path = tmp_path / "wider" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (40 * number, 90, 200)).save(path, quality=95)
    split = tmp_path / "wider/wider_face_split"
    split.mkdir()
    (split / "wider_face_train_bbx_gt.txt").write_text(TRAIN)
    (split / "wider_face_val_bbx_gt.txt").write_text(VAL)
    return tmp_path / "wider"


def ingest(tree, path, **changed):
    scenes = settings(**changed)
    return ingest_scenes(tasks(WiderFaceSettings(path=str(tree)), scenes, 4), path, scenes, "WIDER FACE", "its own", 1)


def jobs(tree, *arguments, **changed):
    """The arguments of each task: a photograph, its set and the longest side."""
    found = tasks(WiderFaceSettings(path=str(tree)), settings(**changed), *arguments)
    return [task.args for task in found if not isinstance(task, SkippedFile)]


def by_name(scenes):
    return {name: row for row, name in enumerate(scenes.names)}


def test_photographs_boxes_and_attributes(tree, tmp_path):
    summary = ingest(tree, tmp_path / "s.h5")
    assert summary == {
        **{"scenes": 5, "train": 3, "validation": 1, "test": 1},
        **{"faces": 4, "ignored": 3, "broken": 0},
        **{"skipped": {"suffix": 2}, "first_skipped": {"suffix": ANNOTATIONS}},
    }
    scenes = open_scenes(tmp_path / "s.h5")
    row = by_name(scenes)
    one = row["0--Parade/one.jpg"]
    boxes, kinds = scenes.ground_truth(one)
    assert boxes.tolist() == [[10, 20, 30, 40], [0, 70, 15, 20], [110, 0, 10, 12]]
    assert kinds.tolist() == [FACE, FACE, IGNORE]
    attributes = scenes.attributes[scenes.starts[one] : scenes.starts[one + 1]]
    assert attributes.tolist() == [[1, 0, 1, 0, 2, 1], [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert scenes.image(one).shape == (90, 120, 3)
    assert np.abs(scenes.image(one).astype(int) - (0, 90, 200)).max() < 4
    assert len(scenes.ground_truth(row["0--Parade/none.jpg"])[0]) == 0
    assert scenes.ground_truth(row["1--Handshaking/flat.jpg"])[1].tolist() == [IGNORE, IGNORE]


def test_longer_sides_are_shrunk_with_their_boxes(tree, tmp_path):
    ingest(tree, tmp_path / "s.h5", side=100)
    scenes = open_scenes(tmp_path / "s.h5")
    row = by_name(scenes)
    large, last = row["2--Demonstration/large.jpg"], row["0--Parade/last.jpg"]
    assert scenes.shapes[large].tolist() == [65, 100]
    assert scenes.ground_truth(large)[0].tolist() == [[25, 12.5, 50, 25]]
    assert scenes.shapes[last].tolist() == [66, 64]
    assert scenes.ground_truth(last)[0].tolist() == [[1, 2, 3, 4]]


def test_both_parts_are_pooled_and_divided_by_the_seed(tree):
    def sets(seed, **counts):
        return [(photo.name, name) for photo, name, _ in jobs(tree, seed, **counts)]

    assert sets(1) == sets(1)
    assert sets(1) != sets(2)
    assert [name for _, name in sets(1)] == ["train"] * 3 + ["validation", "test"]
    assert len({name for name, _ in sets(1)}) == 5
    assert [name for _, name in sets(1, train=1150, validation=100, test=350)] == [
        *["train"] * 2,
        "validation",
        *["test"] * 2,
    ]
    assert len(sets(1, train=1)) == 3
    first = {sets(seed)[0][0] for seed in range(20)}
    assert len(first) == 5


def test_one_part_is_enough(tree):
    (tree / "wider_face_split/wider_face_train_bbx_gt.txt").unlink()
    assert [photo.name for photo in read_annotations(tree)] == ["2--Demonstration/large.jpg", "0--Parade/last.jpg"]
    with pytest.raises(UserError, match="2 annotated photographs, fewer than there are sets"):
        tasks(WiderFaceSettings(path=str(tree)), settings(), 1)


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        (1, "../../secret.jpg", "the name of a .jpg"),
        (1, "/etc/passwd.jpg", "the name of a .jpg"),
        (1, "0--Parade/one.exe", "the name of a .jpg"),
        (1, "0--Parade/o\0ne.jpg", "the name of a .jpg"),
        (2, "three", "the number of faces"),
        (2, "-1", "the number of faces"),
        (2, "10001", "the number of faces, at most 10000"),
        (2, "9" * 5000, "the number of faces"),
        (2, "2", "the name of a .jpg"),
        (3, "10 20 30 40 1 0 1 0 2", "ten whole numbers, x y w h blur"),
        (3, "10 20 30 40 1 0 1 0 2 1 7", "ten whole numbers"),
        (3, "1234567 10 20 30 40 1 0 1 0 2 1", "ten whole numbers"),
        (4, "10 20 30.5 40 1 0 1 0 2 1", "ten whole numbers"),
        (4, "10 20 3000000000 40 1 0 1 0 2 1", "ten whole numbers"),
        (4, "10 20 30 40 999 0 1 0 2 1", "ten whole numbers"),
        (7, "4", "ten whole numbers"),
        (12, "", "ten whole numbers"),
    ],
)
def test_a_malformed_line_is_named(tree, line, text, expected):
    path = tree / "wider_face_split/wider_face_train_bbx_gt.txt"
    lines = TRAIN.splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=expected) as error:
        read_annotations(tree)
    place = {"2": 5, "4": 9}.get(text, line)
    assert f"wider_face_train_bbx_gt.txt, line {place}: expected " in str(error.value)


def test_missing_and_broken_photographs_are_named_and_limited(tree, tmp_path, capsys):
    (gone, *_), (broken, *_), *_ = jobs(tree, 4)
    gone.path.unlink()
    broken.path.write_bytes(b"no photograph")
    with pytest.raises(UserError, match=r"more than 1 images could not be decoded.*scenes\.max_broken"):
        ingest(tree, tmp_path / "s.h5", max_broken=1)
    assert not (tmp_path / "s.h5").exists()
    capsys.readouterr()
    summary = ingest(tree, tmp_path / "s.h5", max_broken=2)
    assert (summary["scenes"], summary["train"], summary["broken"]) == (3, 1, 2)
    error = capsys.readouterr().err
    assert f"broken image {gone.name}: No such file or directory" in error
    assert f"broken image {broken.name}: not an image" in error


def test_photographs_that_cannot_be_read_are_broken(tree, tmp_path, capsys, monkeypatch):
    path, name = tree / "wider_face_split/wider_face_val_bbx_gt.txt", "n" * 300 + ".jpg"
    path.write_text(VAL + f"{name}\n0\n0 0 0 0 0 0 0 0 0 0\n")
    assert ingest(tree, tmp_path / "s.h5", max_broken=1, train=4)["broken"] == 1
    assert f"broken image {name}: File name too long\n" in capsys.readouterr().err

    def denied(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    (result,) = read_photo_scene(read_annotations(tree)[0], "train", 100)
    assert isinstance(result, ImageDecodeError)
    assert result.args == ("0--Parade/one.jpg", "Permission denied")


def test_endless_annotations_are_refused_unread(tree):
    with (tree / ANNOTATIONS[0]).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match=r"wider_face_train_bbx_gt\.txt has more than 64 MiB; fetch"):
        read_annotations(tree)


def test_a_folder_in_place_of_annotations_is_no_file(tree):
    path = tree / "wider_face_split/wider_face_train_bbx_gt.txt"
    path.unlink()
    path.mkdir()
    assert len(read_annotations(tree)) == 2


def test_names_do_not_write_to_the_terminal(tree, tmp_path, capsys):
    path = tree / "wider_face_split/wider_face_val_bbx_gt.txt"
    path.write_text(VAL + "0--Parade/\x1b]0;é\a\x9b31m\u202e.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n", encoding="utf-8")
    escaped = r"0--Parade/\x1b]0;é\x07\x9b31m\u202e.jpg"
    ingest(tree, tmp_path / "s.h5", max_broken=1, train=4)
    assert f"broken image {escaped}: No such file or directory\n" in capsys.readouterr().err
    with pytest.raises(UserError, match=re.escape(f"the last was {escaped}; fix")):
        ingest(tree, tmp_path / "s.h5", max_broken=0, train=4)


def test_what_belongs_to_no_set_is_counted(tree, tmp_path, capsys):
    images = tree / "WIDER_train" / "images"
    for name in ("0--Parade/extra.jpg", "0--Parade/clip.mov", ".hidden.jpg"):
        (images / name).write_bytes(b"not annotated")
    summary = ingest(tree, tmp_path / "s.h5", train=1)
    skipped = {"hidden": 1, "not_annotated": 1, "suffix": 3, "surplus": 2}
    assert (summary["scenes"], summary["skipped"]) == (3, skipped)
    names = summary["first_skipped"]
    assert names["not_annotated"] == ["WIDER_train/images/0--Parade/extra.jpg"]
    assert names["suffix"] == ["WIDER_train/images/0--Parade/clip.mov", *ANNOTATIONS]
    taken = set(open_scenes(tmp_path / "s.h5").names)
    assert taken | set(names["surplus"]) == {name.partition("/images/")[2] for name in SHAPES}
    assert "skipped 2 (more scenes than params.yaml asks for): " in capsys.readouterr().err


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_are_found(tree, tmp_path, listed, stored):
    path, name = tree / ANNOTATIONS[1], "é--Café/é.jpg"
    path.write_text(VAL + f"{unicodedata.normalize(listed, name)}\n0\n0 0 0 0 0 0 0 0 0 0\n", encoding="utf-8")
    file = tree / "WIDER_val" / "images" / unicodedata.normalize(stored, name)
    file.parent.mkdir()
    Image.new("RGB", (70, 70)).save(file)
    summary = ingest(tree, tmp_path / "s.h5", train=4)
    assert (summary["scenes"], summary["broken"], summary["skipped"]) == (6, 0, {"suffix": 2})


def test_a_set_that_lost_all_its_scenes_is_named(tree, tmp_path):
    *_, (test, *_) = jobs(tree, 4)
    test.path.unlink()
    with pytest.raises(UserError, match="no scene is left for test"):
        ingest(tree, tmp_path / "s.h5", max_broken=2)
    assert not (tmp_path / "s.h5").exists()


def test_a_huge_file_is_refused_unread(tree):
    (photo, *_) = read_annotations(tree)
    with photo.path.open("r+b") as file:
        file.truncate(1 << 40)
    (result,) = read_photo_scene(photo, "train", 100)
    assert isinstance(result, ImageDecodeError)
    assert "larger than 192 MiB" in result.args[1]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (None, ["WIDER FACE is not in downloads/wider_face", "WIDER_train.zip", "sources.wider_face.path"]),
        ("nowhere", ["nowhere is not a folder", "sources.wider_face.path"]),
        ("empty", ["empty lacks wider_face_split/wider_face_train_bbx_gt.txt"]),
    ],
)
def test_without_data_it_says_what_to_do(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(UserError) as error:
        tasks(WiderFaceSettings(path=path), settings(), 1)  # before the first is asked for
    assert all(word in str(error.value) for word in words)


def test_a_null_path_is_the_folder_of_downloads(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    Path("downloads").mkdir()
    tree.rename("downloads/wider_face")
    found = [each for each in tasks(WiderFaceSettings(path=None), settings(), 1) if not isinstance(each, SkippedFile)]
    assert len(found) == len(SHAPES)


@pytest.mark.skipif(not REAL.exists(), reason="photographs of WIDER FACE are not part of the project")
def test_real_photographs(tmp_path):
    summary = ingest(REAL, tmp_path / "s.h5", side=160, train=11_500, validation=1_000, test=3_500)
    assert (summary["scenes"], summary["faces"] + summary["ignored"]) == (121, 641)
    assert [summary[name] for name in SETS] == [85, 9, 27]
    scenes = open_scenes(tmp_path / "s.h5")
    assert scenes.shapes.max() == 160
    assert len(set(scenes.names)) == 121

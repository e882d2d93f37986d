"""The SceneSet contract, batches for networks, and the embedded scenes."""

import itertools
import pickle
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.support.digests import on_a_plain_processor, scenes_digest
from tests.support.project import ROOT
from visor.core import params
from visor.core.config import load_params
from visor.core.errors import UserError
from visor.data.face_set import evenly_spaced
from visor.data.rendering.crowd import PersonCutout, bounds, paste_people
from visor.data.rendering.cut_out import cut_out, from_behind
from visor.data.rendering.frames import draw_frames
from visor.data.rendering.identity import draw_identity
from visor.data.scene_set import (
    FACE,
    IGNORE,
    PAD_VALUE,
    PADDING,
    SETS,
    Scene,
    letterbox,
    open_scenes,
    read_letterboxed,
    resize_longer_side,
    scene_training_data,
    write_scenes,
)
from visor.data.sources import synthetic_scenes
from visor.data.sources.scene_ingest import ingest_scenes, proportional_sizes, scene_sheet
from visor.data.sources.synthetic_scenes import SyntheticScenesSettings, draw, tasks

SHAPES = ((31, 47), (64, 20), (40, 40), (17, 90), (55, 54))
COUNTS = (2, 0, 3, 1, 1)
INSIDE, OUTSIDE = 220, 30  # values of pixels within and without the boxes of `marked`


def random_scenes():
    generator = np.random.default_rng(3)
    for number, ((height, width), count) in enumerate(zip(SHAPES, COUNTS, strict=True)):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        corners = generator.random((count, 2)) * (width / 2, height / 2)
        boxes = np.concatenate([corners, generator.random((count, 2)) * 15], axis=1).astype(np.float32)
        attributes = generator.integers(0, 3, (count, 6)).astype(np.int8)
        ignored = np.arange(count) % 2 == 1
        yield Scene(f"scène {number}", image, boxes, ignored, attributes, SETS[(number + 1) % 3])


def marked():
    """Scenes with one bright box each."""
    for number, (height, width) in enumerate(SHAPES):
        x, y, w, h = width // 8, height // 3, width // 3, height // 4
        image = np.full((height, width, 3), OUTSIDE, np.uint8)
        image[y : y + h, x : x + w] = INSIDE
        box = np.array([[x, y, w, h]], np.float32)
        yield Scene(str(number), image, box, np.zeros(1, bool), np.zeros((1, 6), np.int8), "train")


@pytest.fixture
def scenes(tmp_path):
    path = tmp_path / "scenes.h5"
    write_scenes(path, random_scenes(), "a source", "a licence")
    return open_scenes(path)


def test_what_is_written_is_read(scenes):
    assert len(scenes) == len(SHAPES)
    assert scenes.max_boxes == max(COUNTS)
    assert (scenes.source, scenes.licence) == ("a source", "a licence")
    assert {name: scenes.rows(name).tolist() for name in SETS} == {
        "train": [2],
        "validation": [0, 3],
        "test": [1, 4],
    }
    for row, scene in enumerate(random_scenes()):
        boxes, kinds = scenes.ground_truth(row)
        assert scenes.names[row] == scene.name
        np.testing.assert_array_equal(scenes.image(row), scene.image)
        np.testing.assert_array_equal(boxes, scene.boxes)
        assert kinds.tolist() == [IGNORE if ignored else FACE for ignored in scene.ignored]
        part = slice(*scenes.starts[row : row + 2])
        np.testing.assert_array_equal(scenes.attributes[part], scene.attributes)


def test_the_same_scenes_give_the_same_bytes_and_a_failed_write_leaves_nothing(scenes, tmp_path):
    def broken():
        yield next(random_scenes())
        raise RuntimeError("disk")

    write_scenes(tmp_path / "again.h5", random_scenes(), "a source", "a licence")
    assert (tmp_path / "again.h5").read_bytes() == scenes.path.read_bytes()
    with pytest.raises(RuntimeError):
        write_scenes(tmp_path / "failed.h5", broken(), "", "")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.h5", "scenes.h5"]


def test_no_scenes_at_all(tmp_path):
    write_scenes(tmp_path / "s.h5", [], "", "")
    empty = open_scenes(tmp_path / "s.h5")
    assert (len(empty), empty.max_boxes, empty.boxes.shape) == (0, 0, (0, 4))


def other(path):
    return path.with_name("other.h5")


def edited(path):
    """A copy, as HDF5 opens a file in one way at a time."""
    shutil.copy(path, other(path))
    return h5py.File(other(path), "r+")


def test_missing_truncated_and_foreign_files_are_named(scenes, tmp_path):
    truncated, foreign, text = tmp_path / "t.h5", tmp_path / "x.h5", tmp_path / "text.h5"
    truncated.write_bytes(scenes.path.read_bytes()[:9000])
    text.write_text("not HDF5")
    with h5py.File(foreign, "w") as file:
        file["pixels"] = np.zeros(3, np.uint8)
    for path in (truncated, foreign, text, tmp_path / "none.h5"):
        with pytest.raises(UserError, match=path.name):
            open_scenes(path)


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pixels", lambda old: old[:-1]),
        ("pixels", lambda old: old.astype(np.int16)),
        ("shapes", lambda old: changed(old, (0, 0), 0)),
        ("shapes", lambda old: changed(old, 1, old[1][::-1] + 1)),
        ("shapes", lambda old: changed(old, 0, 2**31 - 1)),
        ("shapes", lambda old: old[:, :1]),
        ("shapes", lambda old: old.astype(np.float32)),
        ("offsets", lambda old: changed(old, 2, old[2] + 3)),
        ("offsets", lambda old: old[:-1]),
        ("starts", lambda old: changed(old, 1, old[-1] + 1)),
        ("starts", lambda old: changed(old, 0, 1)),
        ("starts", lambda old: changed(old, slice(1, 4), [2, 1, 5])),
        ("starts", lambda old: changed(old, -1, old[-1] - 1)),
        ("boxes", lambda old: changed(old, (0, 0), np.nan)),
        ("boxes", lambda old: changed(old, (1, 2), np.inf)),
        ("boxes", lambda old: changed(old, (1, 3), -1)),
        ("boxes", lambda old: changed(old, (0, 2), 0)),
        ("boxes", lambda old: changed(old, (2, 3), 0)),
        ("boxes", lambda old: old[:-1]),
        ("ignored", lambda old: old[1:]),
        ("attributes", lambda old: old[:, :5]),
        ("sets", lambda old: changed(old, 0, 3)),
        ("sets", lambda old: changed(old, 0, -1)),
        ("names", lambda old: old[:-1]),
        ("names", lambda old: np.frombuffer(b"7", np.uint8)),
        ("names", lambda old: np.frombuffer(b'["a"]', np.uint8)),
    ],
)
def test_a_foreign_file_that_breaks_the_contract_is_refused(scenes, name, change):
    with edited(scenes.path) as file:
        old = file[name][()]
        del file[name]
        file[name] = change(old)
    with pytest.raises(UserError, match=r"other\.h5 is not a (valid )?SceneSet"):
        open_scenes(other(scenes.path))


def test_a_box_without_area_may_be_ignored(scenes):
    with edited(scenes.path) as file:
        assert file["ignored"][1] == 1
        file["boxes"][1, 2:] = 0
    assert open_scenes(other(scenes.path)).ground_truth(0)[0][1, 2:].tolist() == [0, 0]


def promise(file):
    file.create_dataset("shapes", (10**9, 2), np.int32, chunks=(1024, 2))  # terabytes in a file of a kilobyte


def pack(file):
    file.create_dataset("shapes", data=np.array(SHAPES, np.int32), compression="gzip")


def link(file):
    file["shapes"] = h5py.ExternalLink("elsewhere.h5", "shapes")


def alias(file):
    file["shapes"] = h5py.SoftLink("/offsets")


def outsource(file):
    file.create_dataset("shapes", (5, 2), np.int32, external=[("/etc/hostname", 0, 40)])


def assemble(file):
    layout = h5py.VirtualLayout((5, 2), np.int32)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "shapes", (5, 2))
    file.create_virtual_dataset("shapes", layout)


@pytest.mark.parametrize("untrusted", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (promise, r"is not a SceneSet \(shapes is"),
        (pack, r"is not a SceneSet \(shapes is compressed\)"),
        (link, "shapes is a link"),
        (alias, "shapes is a link"),
        (outsource, "shapes keeps its numbers in another file"),
        (assemble, "shapes keeps its numbers in another file"),
    ],
)
def test_what_lies_elsewhere_or_is_packed_is_refused(scenes, change, message, untrusted):
    with edited(scenes.path) as file:
        del file["shapes"]
        change(file)
    with pytest.raises(UserError, match=rf"other\.h5.* {message}"):
        open_scenes(other(scenes.path), untrusted)


# canvases


@pytest.mark.parametrize("side", [24, 40, 128])
def test_letterbox_keeps_the_boxes_on_what_they_surround(side):
    for scene in marked():
        before = scene.image.copy(), scene.boxes.copy()
        canvas, boxes = letterbox(scene.image, scene.boxes, side)
        np.testing.assert_array_equal(scene.image, before[0])
        np.testing.assert_array_equal(scene.boxes, before[1])
        assert (canvas.shape, canvas.dtype, boxes.dtype) == ((side, side, 3), np.uint8, np.float32)
        height, width = scene.image.shape[:2]
        down, across = round(height * side / max(height, width)), round(width * side / max(height, width))
        assert (canvas[down:] == PAD_VALUE).all()
        assert (canvas[:, across:] == 127).all()
        x, y, w, h = bounds(canvas[:down, :across, 0] > (INSIDE + OUTSIDE) / 2)
        edges = np.append(boxes[0, :2], boxes[0, :2] + boxes[0, 2:])
        np.testing.assert_allclose([x, y, x + w, y + h], edges, atol=0.76)


def test_a_square_of_the_side_is_returned_as_it_is(scenes):
    image, (boxes, _) = scenes.image(2), scenes.ground_truth(2)
    canvas, same = letterbox(image, boxes, 40)
    assert canvas is image
    assert same is boxes
    assert resize_longer_side(image, boxes, 40)[0] is image


def test_batches_are_padded_and_in_order(scenes):
    rows = np.array([4, 2, 1])
    batches = list(read_letterboxed(scenes, rows, 32, 2, 7))
    assert [images.shape for images, _ in batches] == [(2, 32, 32, 3), (1, 32, 32, 3)]
    place = 0
    for images, (boxes, kinds) in batches:
        assert (boxes.dtype, kinds.dtype) == (np.float32, np.int32)
        assert boxes.shape[1:] == (7, 4)
        for image, box, kind in zip(images, boxes, kinds, strict=True):
            row = rows[place]
            expected, mapped = letterbox(scenes.image(row), scenes.ground_truth(row)[0], 32)
            np.testing.assert_array_equal(image, expected)
            np.testing.assert_array_equal(box[: COUNTS[row]], mapped)
            assert kind[: COUNTS[row]].tolist() == scenes.ground_truth(row)[1].tolist()
            assert (box[COUNTS[row] :] == 0).all()
            assert (kind[COUNTS[row] :] == PADDING).all()
            place += 1


def joined(batches):
    images, truths = zip(*batches, strict=True)
    return np.concatenate(images), *(np.concatenate(arrays) for arrays in zip(*truths, strict=True))


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(joined(first), joined(second), strict=True))


def test_training_data_is_decided_by_seed_and_epoch(scenes):
    rows = np.array([4, 2, 0, 3])
    data = scene_training_data(scenes, rows, 30, 5)
    assert data.count == 4
    assert equal(data.batches(3, None), read_letterboxed(scenes, rows, 30, 2, scenes.max_boxes))
    assert equal(data.batches(3, 0), data.batches(1, 0))
    assert not equal(data.batches(4, 0), data.batches(4, 1))
    assert equal(scene_training_data(scenes, rows, 30, 5).batches(4, 7), data.batches(4, 7))
    assert not equal(scene_training_data(scenes, rows, 30, 6).batches(4, 7), data.batches(4, 7))
    others = [(rows, 30, 6), (rows, 31, 5), (rows[:3], 30, 5)]
    assert data.identity not in {scene_training_data(scenes, *other).identity for other in others}
    assert data.identity == scene_training_data(scenes, rows, 30, 5).identity


def test_varied_scenes_keep_their_boxes_on_what_they_surround(tmp_path):
    write_scenes(tmp_path / "m.h5", marked(), "", "")
    scenes = open_scenes(tmp_path / "m.h5")
    data = scene_training_data(scenes, np.repeat(scenes.rows("train"), 8), 48, 2)
    images, boxes, kinds = joined(data.batches(7, 1))
    assert (kinds == FACE).all()
    mirrored = 0
    for image, (x, y, w, h) in zip(images, boxes[:, 0], strict=True):
        left, top, width, height = bounds(image[..., 0] > int(image.max()) - 35)
        np.testing.assert_allclose([left, top, left + width, top + height], [x, y, x + w, y + h], atol=1.3)
        mirrored += left > 0.25 * 48
    assert 8 < mirrored < 32
    assert len(np.unique(images.max(axis=(1, 2, 3)))) > 8  # as many lights


@pytest.mark.parametrize("name", ["train", "validation"])
def test_nothing_to_learn_from_is_named(tmp_path, name):
    """A set without a scene, without a box, and whose boxes are all ignored."""
    first, *others = (scene._replace(set=SETS[2]) for scene in marked())
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, bool), np.zeros((0, 6), np.int8)
    bare = Scene(first.name, first.image, *nothing, name)
    hidden = first._replace(ignored=np.ones(1, bool), set=name)
    cases = [([first, *others], rf"s\.h5 has no scene in its set {name};"), ([bare], ""), ([bare, hidden, *others], "")]
    for number, (kept, words) in enumerate(cases):
        path = tmp_path / f"{number}s.h5"
        write_scenes(path, kept, "", "")
        scenes = open_scenes(path)
        with pytest.raises(UserError, match=words or rf"s\.h5: its {name} scenes contain no face"):
            scene_training_data(scenes, scenes.rows(name), 40, 1)


# the embedded source


def scenes_settings(side=96, train=9, validation=4, test=5, max_broken=0) -> params.SceneParams:
    return params.SceneParams(
        source="x", max_side=side, train=train, validation=validation, test=test, max_broken=max_broken
    )


SETTINGS = SyntheticScenesSettings(identities=7, faces=4, difficulty=1.0)


def test_bytes_do_not_depend_on_processes_or_order(tmp_path):
    files = []
    for processes in (1, 3):
        files.append(tmp_path / f"{processes}.h5")
        settings = scenes_settings()
        summary = ingest_scenes(tasks(SETTINGS, settings, 3), files[-1], settings, "s", "l", processes)
    assert files[0].read_bytes() == files[1].read_bytes()
    scenes = open_scenes(files[0])
    assert {name: len(scenes.rows(name)) for name in SETS} == {"train": 9, "validation": 4, "test": 5}
    expected = {
        "scenes": 18,
        "train": 9,
        "validation": 4,
        "test": 5,
        "broken": 0,
        "ignored": 0,
        "skipped": {},
        "first_skipped": {},
    }
    assert summary == expected | {"faces": len(scenes.boxes)}
    assert (scenes.shapes == 96).all()
    scene_sheet(scenes, tmp_path / "a.png")
    scene_sheet(scenes, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").height == 3 * 162


def test_all_scenes_may_be_test_scenes(tmp_path):
    settings = scenes_settings(train=0, validation=0)
    summary = ingest_scenes(tasks(SETTINGS, settings, 3), tmp_path / "s.h5", settings, "s", "l", 1)
    assert (summary["train"], summary["validation"], summary["test"]) == (0, 0, settings.test)
    scenes = open_scenes(tmp_path / "s.h5")
    assert scenes.rows("test").tolist() == list(range(settings.test))
    with pytest.raises(UserError, match="has no scene in its set train"):
        scenes.rows("train")
    scene_sheet(scenes, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").height == 162


def test_nobody_is_in_two_sets_and_every_scene_is_drawn_once():
    settings = SyntheticScenesSettings(identities=40, faces=4, difficulty=1)
    work = [pickle.loads(pickle.dumps(task)).args for task in tasks(settings, scenes_settings(train=300), 3)]
    people = {name: {person for *_, owner, cast, _ in work if owner == name for person in cast} for name in SETS}
    rows = {name: [row for *_, owner, _, part in work if owner == name for row in part] for name in SETS}
    assert sum(map(len, people.values())) == len(set.union(*people.values())) == 40
    assert rows == {"train": list(range(300)), "validation": list(range(4)), "test": list(range(5))}


def test_the_attacked_scenes_show_twenty_people_and_no_other_set_does(monkeypatch):
    """By the committed params, of which only the side is smaller; a face on a back is nobody's."""
    params = load_params(ROOT / "params.yaml")
    settings = SyntheticScenesSettings(**params.sources["synthetic_scenes"])
    shown = []
    monkeypatch.setattr(synthetic_scenes, "cut_out_person", lambda *args: [*[args[-1]] * synthetic_scenes.POSES, None])
    monkeypatch.setattr(synthetic_scenes, "paste_people", lambda _, __, figures: shown.append(figures) or [])
    people = {}
    for task in tasks(settings, params.scenes.model_copy(update={"max_side": 64, "train": 40}), params.seed):
        shown.clear()
        rows = [scene.name for scene in task()]
        people |= {name: {who for who, _ in figures} - {None} for name, figures in zip(rows, shown, strict=True)}
    test = [people[f"test_{row:05d}"] for row in range(params.scenes.test)]
    attacked = [test[row] for row in evenly_spaced(params.detection_attack.images, len(test))]
    assert len(test) >= 96
    assert len(set.union(*attacked)) >= 20
    others = set.union(*(who for name, who in people.items() if not name.startswith("test")))
    assert not set.union(*test) & others


def test_tasks_stay_small():
    work = [task.args for task in tasks(SETTINGS, scenes_settings(side=512, train=200), 3)]
    most = max(len(rows) for *_, rows in work)
    assert (most - 1) * 3 * 512**2 < synthetic_scenes.TASK_BYTES < 100 * 3 * 512**2


@pytest.fixture(scope="module")
def drawn():
    return draw(SETTINGS, 96, 3, "train", range(5), range(40))


def test_scenes_vary_within_their_limits(drawn):
    counts = [len(scene.boxes) for scene in drawn]
    assert min(counts) == 0
    assert max(counts) == 4
    boxes = np.concatenate([scene.boxes for scene in drawn])
    assert (boxes == np.rint(boxes)).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 96).all()
    cut = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] == 96).any(axis=1)
    assert 0.02 < cut.mean() < 0.4
    heights = boxes[~cut, 3] / 96
    assert heights.min() >= 0.10
    assert 0.4 < heights.max() <= 0.62
    attributes = np.concatenate([scene.attributes for scene in drawn])
    assert set(attributes[:, 4]) == {0, 1, 2}
    assert set(attributes[:, 5]) == {0, 1}
    assert not attributes[:, :4].any()


def test_seed_and_row_decide(drawn):
    again = draw(SETTINGS, 96, 3, "train", range(5), range(18, 19))
    np.testing.assert_array_equal(again[0].image, drawn[18].image)
    np.testing.assert_array_equal(again[0].boxes, drawn[18].boxes)
    assert not np.array_equal(draw(SETTINGS, 96, 4, "train", range(5), range(1))[0].image, drawn[0].image)
    assert not np.array_equal(draw(SETTINGS, 96, 3, "test", range(5), range(1))[0].image, drawn[0].image)


def test_bytes_do_not_depend_on_the_processor():
    assert on_a_plain_processor(scenes_digest) == scenes_digest()


def coloured(red, green, size=40):
    """A figure whose face is red, the rest green."""
    person = np.zeros((size, size, 4), np.uint8)
    person[5:, 8:32] = (0, green, 0, 255)
    person[10:30, 12:27] = (red, 0, 0, 255)
    face = np.zeros((size, size), np.uint8)
    face[10:30, 12:27] = 255
    return PersonCutout(Image.fromarray(person), Image.fromarray(face), True, False)


def test_boxes_surround_exactly_what_is_seen_of_a_face():
    cuts = 0
    for seed in range(60):
        canvas = Image.new("RGB", (70, 70))
        (face,) = paste_people(np.random.default_rng(seed), canvas, [(coloured(250, 250), 14 + seed % 23)])
        pixels = np.asarray(canvas).astype(int)
        x, y, w, h = bounds(pixels[..., 0] > pixels[..., 1])  # within a pixel: at an edge the two are mixed
        left, top, width, height = face.box
        np.testing.assert_allclose([left, top, left + width, top + height], [x, y, x + w, y + h], atol=1)
        assert face.occlusion == 0
        cuts += min(left, top) == 0 or max(left + width, top + height) == 70
        assert height >= 0.6 * (14 + seed % 23)
    assert 3 < cuts < 25


def test_a_face_stays_in_sight_behind_others_and_is_graded():
    grades = []
    for seed in range(40):
        canvas = Image.new("RGB", (60, 60))
        figures = [(coloured(250, 0), 17), (coloured(0, 250), 21), (coloured(0, 250), 30)]
        small, *others = paste_people(np.random.default_rng(seed), canvas, figures)
        seen = (np.asarray(canvas)[..., 0] > 60).sum()
        share = seen / (small.box[2] * small.box[3])
        assert share > 0.55
        grades.append((small.occlusion, share))
        assert len(others) <= 2
    assert all(share > 0.9 for grade, share in grades if grade == 0)
    assert all(0.7 < share < 0.995 for grade, share in grades if grade == 1)
    assert all(share < 0.88 for grade, share in grades if grade == 2)
    assert {grade for grade, _ in grades} == {0, 1, 2}


def test_backs_of_heads_have_no_box():
    back = coloured(250, 250)._replace(seen=False)
    canvas = Image.new("RGB", (60, 60))
    assert paste_people(np.random.default_rng(1), canvas, [(back, 20)]) == []
    assert np.asarray(canvas).any()


def test_a_cut_out_is_opaque_where_the_person_is_and_its_face_is_skin():
    generator = np.random.default_rng(8)
    who = np.repeat(draw_identity(generator), 3)
    frames = draw_frames(generator, 3, 0.2)
    frames["scale"], frames["shift_x"], frames["shift_y"] = 0.66, 0, -0.04
    people, face = cut_out(who, frames, 64, 64)
    assert (people.shape, face.shape) == ((3, 64, 64, 4), (3, 64, 64))
    assert (people[:, :3, :, 3] == 0).all()
    assert (people[:, 30:60, 32, 3] == 255).all()
    assert (people[face > 127][:, 3] > 127).all()
    skin = 255 * np.sqrt(who[0]["skin"])
    middle = np.median(people[face > 200][:, :3], axis=0)
    assert np.argsort(middle).tolist() == np.argsort(skin).tolist()
    for mask in face:
        _, top, width, height = bounds(mask > 127)
        assert 0.25 * 64 < height < 0.75 * 64
        assert 0.5 < width / height < 1.3
        assert top > 5
    back = from_behind(who, frames, 64, 64)
    np.testing.assert_array_equal(back[..., 60:, :, 3] > 250, people[..., 60:, :, 3] > 250)
    assert not np.array_equal(back, people)


@pytest.mark.parametrize(
    ("total", "sizes", "expected"),
    [
        (16_106, (11_500, 1_000, 3_500), (11_500, 1_000, 3_500)),
        (8_003, (11_500, 1_000, 3_500), (5751, 501, 1751)),
        (121, (800, 64, 96), (99, 9, 13)),
        (3, (800, 64, 96), (1, 1, 1)),
        (4, (1, 1, 98), (1, 1, 2)),
        (11, (1, 1, 10), (1, 1, 9)),
        (60, (800, 64, 96), (48, 5, 7)),
        (7, (2, 2, 2), (2, 2, 2)),
        (121, (0, 0, 200), (0, 0, 121)),
        (121, (0, 1, 200), (0, 1, 120)),
    ],
)
def test_few_are_divided_in_proportion(total, sizes, expected):
    assert proportional_sizes(total, sizes) == expected


def test_no_set_is_empty_or_larger_than_asked():
    for sizes in itertools.product((1, 2, 5, 10), repeat=3):
        for total in range(3, sum(sizes) + 2):
            parts = proportional_sizes(total, sizes)
            assert sum(parts) == min(total, sum(sizes))
            assert all(1 <= part <= size for part, size in zip(parts, sizes, strict=True)), (total, sizes, parts)

"""The FaceSet contract and the files it comes from."""

import shutil

import h5py
import numpy as np
import pytest

from tests.conftest import COUNTS, HEIGHT, WIDTH, random_images
from visor.core.errors import UserError
from visor.core.files import atomic_write, read_json, write_json
from visor.data.face_set import FaceBatch, evenly_spaced, open_faces, read_batches, write_faces


def test_what_is_written_is_read(faces):
    assert len(faces) == sum(COUNTS)
    assert faces.image_shape == (HEIGHT, WIDTH, 3)
    assert faces.label_names == ("ann", "bob", "cleo", "dan")
    np.testing.assert_array_equal(faces.read(np.arange(len(faces))), random_images(len(faces)))


@pytest.mark.parametrize("rows", [[5], [80, 3, 3, 41], [7, 6, 8, 9], [0, 89], []])
def test_rows_come_in_the_order_asked_for(faces, rows):
    expected = random_images(len(faces))[rows]
    np.testing.assert_array_equal(faces.read(np.array(rows, int)), expected)


def test_the_same_blocks_give_the_same_bytes(tmp_path):
    def blocks(sizes):
        start = 0
        for size in sizes:
            rows = np.arange(start, start + size, dtype=np.int32)
            yield FaceBatch(random_images(11)[rows], rows, rows, rows)
            start += size

    for name, sizes in (("a", (4, 7)), ("b", (4, 7))):
        write_faces(tmp_path / name, blocks(sizes), (HEIGHT, WIDTH, 3), ["x"], "s", "l")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_batches_join_selections_in_the_order_given(faces):
    first, second = (
        faces.select(np.array([4, 2, 9])),
        faces.select(np.array([50, 60]))._replace(labels=np.array([7, 8])),
    )
    order = np.array([4, 0, 3, 2, 1])
    batches = list(read_batches([first, second], 2, order))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    expected = random_images(len(faces))[[60, 4, 50, 9, 2]]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), expected)
    assert np.concatenate([labels for _, labels in batches]).tolist() == [8, 0, 7, 0, 0]


@pytest.mark.parametrize(
    ("count", "total", "rows"),
    [(3, 9, [0, 4, 8]), (4, 6, [0, 1, 3, 5]), (1, 5, [0]), (9, 3, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (4, 0, [])],
)
def test_evenly_spaced(count, total, rows):
    assert evenly_spaced(count, total).tolist() == rows


@pytest.mark.parametrize("total", range(1, 60))
def test_evenly_spaced_rows_are_distinct_from_first_to_last(total):
    for count in range(2, 70):
        rows = evenly_spaced(count, total)
        assert len(rows) == min(count, total)
        assert rows[-1] == total - 1
        np.testing.assert_array_equal(rows, np.unique(np.linspace(0, total - 1, count).astype(int)))


def test_a_failed_write_leaves_nothing(tmp_path):
    def broken():
        yield FaceBatch(random_images(2), *[np.zeros(2, np.int32)] * 3)
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_faces(tmp_path / "f.h5", broken(), (HEIGHT, WIDTH, 3), ["x"], "s", "l")
    assert list(tmp_path.iterdir()) == []


def other(path):
    return path.with_name("other.h5")


def edited(path):
    """A copy, as HDF5 opens a file in one way at a time."""
    shutil.copy(path, other(path))
    return h5py.File(other(path), "r+")


def test_missing_truncated_and_foreign_files_are_named(tmp_path, faces):
    truncated, foreign, text = tmp_path / "t.h5", tmp_path / "x.h5", tmp_path / "text.h5"
    truncated.write_bytes(faces.path.read_bytes()[:5000])
    text.write_text("not HDF5")
    with h5py.File(foreign, "w") as file:
        file["pixels"] = [1]
    for path in (truncated, foreign, text, tmp_path / "none.h5"):
        with pytest.raises(UserError, match=path.name):
            open_faces(path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("images", np.zeros((90, HEIGHT, WIDTH, 3), np.float32)),
        ("images", np.zeros((90, 3, HEIGHT, WIDTH), np.uint8)),
        ("images", np.zeros((89, HEIGHT, WIDTH, 3), np.uint8)),
        ("labels", np.full(90, 4, np.int32)),
        ("labels", np.full(90, -1, np.int32)),
        ("labels", np.zeros(90, np.float32)),
        ("videos", np.zeros((90, 1), np.int32)),
    ],
)
def test_a_foreign_file_that_breaks_the_contract_is_refused(faces, name, values):
    with edited(faces.path) as file:
        del file[name]
        file[name] = values
    with pytest.raises(UserError, match="is not a valid FaceSet"):
        open_faces(other(faces.path))


@pytest.mark.parametrize("text", ["ann, bob", '{"ann": 1}', '["ann", 2]', "[" * 100_000, ""])
def test_label_names_that_are_no_list_are_refused(faces, text):
    with edited(faces.path) as file:
        file.attrs["label_names"] = text
    with pytest.raises(UserError, match="is not a FaceSet") as caught:
        open_faces(other(faces.path))
    assert len(str(caught.value)) < 300


def lost(path):
    return path.with_name("secret.bin")


def outsource(file, path):
    lost(path).write_bytes(bytes(90 * HEIGHT * WIDTH * 3))
    file.create_dataset(
        "images", (90, HEIGHT, WIDTH, 3), np.uint8, external=[(str(lost(path)), 0, 90 * HEIGHT * WIDTH * 3)]
    )


def link(file, path):
    file["images"] = h5py.ExternalLink(str(path), "images")


def alias(file, path):
    file["images"] = h5py.SoftLink("/pixels")


def assemble(file, path):
    layout = h5py.VirtualLayout((90, HEIGHT, WIDTH, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(path), "images", (90, HEIGHT, WIDTH, 3))
    file.create_virtual_dataset("images", layout)


@pytest.mark.parametrize("untrusted", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outsource, "images keeps its numbers in another file"),
        (link, "images is a link, which may lead outside the file"),
        (alias, "images is a link"),
        (assemble, "images keeps its numbers in another file"),
    ],
)
def test_pixels_of_another_file_are_refused(faces, change, message, untrusted):
    """Else a service would be sent the bytes of any file of the user's."""
    with edited(faces.path) as file:
        file.move("images", "pixels")
        change(file, faces.path)
    with pytest.raises(UserError, match=message) as caught:
        open_faces(other(faces.path), untrusted)
    assert str(other(faces.path)) in str(caught.value)


def promise(file, name, rows, tail=(), kind=np.int32, **storage):
    del file[name]
    file.create_dataset(name, (rows, *tail), kind, chunks=(1 << 16, *tail) if not tail else (1, *tail), **storage)


@pytest.mark.parametrize("untrusted", [False, True])
@pytest.mark.parametrize(("rows", "message"), [(1 << 40, "is not a valid"), (9_000_000, "is more than it can hold")])
def test_sizes_that_the_file_cannot_hold_are_refused_unread(faces, rows, message, untrusted):
    with edited(faces.path) as file:
        for name in ("labels", "videos", "rows"):
            promise(file, name, rows)
        promise(file, "images", rows, (HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(UserError, match=message):
        open_faces(other(faces.path), untrusted)


def test_an_untrusted_file_reads_the_same(faces):
    theirs, rows = open_faces(faces.path, untrusted=True), np.array([80, 3, 3, 41])
    assert (theirs.label_names, theirs.source, theirs.licence) == (faces.label_names, faces.source, faces.licence)
    np.testing.assert_array_equal(theirs.labels, faces.labels)
    for part in (rows, np.arange(90), np.array([], int)):
        np.testing.assert_array_equal(theirs.read(part), faces.read(part))


def test_json_is_sorted_rounded_and_whole(tmp_path):
    path = tmp_path / "m.json"
    write_json(path, {"b": 1 / 3, "a": {"d": 2, "c": 123456.789}})
    assert path.read_text() == '{\n  "a": {\n    "c": 123457.0,\n    "d": 2\n  },\n  "b": 0.333333\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path)["b"] == 0.333333
    path.write_text("{")
    for bad in (path, tmp_path / "none.json"):
        with pytest.raises(UserError, match=bad.name):
            read_json(bad)


def test_replacing_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

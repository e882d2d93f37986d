"""Archives from strangers: whole, in order, or refused in one sentence."""

import bz2
import gzip
import io
import os
import tarfile
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from visor.core.errors import UserError
from visor.data import archives
from visor.data.archives import SkippedFile

CONTENT = {"a/1.jpg": os.urandom(700), "a/2.JPG": os.urandom(512), "b/c/3.jpg": os.urandom(3)}
MORE = {"a/readme.txt": b"no", "a/.hidden.jpg": b"no", ".cache/4.jpg": b"no"}
SKIPPED = {("a/readme.txt", "suffix"), ("a/.hidden.jpg", "hidden"), (".cache/4.jpg", "hidden")}


def tar_bytes(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def read(path: Path) -> dict[str, bytes]:
    files = [file for file in archives.iterate_files(path, {".jpg"}) if not isinstance(file, SkippedFile)]
    return {str(name): data if isinstance(data, bytes) else data.read_bytes() for name, data in files}


def skipped(path: Path) -> set[tuple[str, str]]:
    return {tuple(file) for file in archives.iterate_files(path, {".jpg"}) if isinstance(file, SkippedFile)}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archive_gives_its_images_in_order(tmp_path, mode):
    path = tmp_path / "faces"
    with tarfile.open(path, mode) as archive:
        for name, data in reversed((CONTENT | MORE).items()):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert list(read(path).items()) == list(reversed(CONTENT.items()))
    assert skipped(path) == SKIPPED


def test_folder_gives_its_images_sorted(tmp_path):
    for name, data in reversed((CONTENT | MORE).items()):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    assert list(read(tmp_path).items()) == list(CONTENT.items())
    assert skipped(tmp_path) == SKIPPED


def test_archive_is_streamed(tmp_path):
    path = tmp_path / "faces.tar"
    path.write_bytes(tar_bytes({f"a/{number}.jpg": os.urandom(20_000) for number in range(50)})[:500_000])
    found = archives.iterate_files(path, {".jpg"})
    assert next(found).name == PurePosixPath("a/0.jpg")  # the cut end of the archive was not read yet
    with pytest.raises(UserError):
        list(found)


def test_links_and_devices_in_an_archive_are_named(tmp_path):
    path = tmp_path / "faces.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a/link.jpg", tarfile.SYMTYPE), ("a/hard.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        device = tarfile.TarInfo("a/device.jpg")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    assert read(path) == {}
    assert skipped(path) == {("a/link.jpg", "link"), ("a/hard.jpg", "link"), ("a/device.jpg", "special")}


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/etc/evil.jpg", "../evil.txt", "a/" * 2049])
def test_path_outside_is_refused(tmp_path, name):
    path = tmp_path / "faces.tar"
    path.write_bytes(tar_bytes({"a/1.jpg": b"x", name: b"x"}))
    with pytest.raises(UserError, match=rf"faces\.tar contains '{name[:50]}") as caught:
        read(path)
    assert len(str(caught.value)) < len(str(path)) + 160


WHOLE = tar_bytes(CONTENT)
ENDS = [1, 511, 512, 700, 1024, 1536, 2048, 2560, 3072]  # before, in and between the headers and files


@pytest.mark.parametrize("end", ENDS)
def test_truncated_tar_is_refused(tmp_path, end):
    path = tmp_path / "faces.tar"
    path.write_bytes(WHOLE[:end])
    with pytest.raises(UserError, match=r"faces\.tar is not a complete tar archive"):
        read(path)


@pytest.mark.parametrize("end", [5, 40, 600, -1, -8])
def test_truncated_gzip_is_refused(tmp_path, end):
    path = tmp_path / "faces.tar.gz"
    path.write_bytes(gzip.compress(WHOLE)[:end])
    with pytest.raises(UserError, match=r"faces\.tar\.gz is not a complete tar archive"):
        read(path)


def test_corrupt_checksum_is_refused(tmp_path):
    path = tmp_path / "faces.tar.gz"
    data = bytearray(gzip.compress(WHOLE))
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"is not a complete tar archive \(CRC"):
        read(path)


@pytest.mark.parametrize("place", [4, 30, 200, -5])
def test_corrupt_bzip2_is_refused(tmp_path, place):
    path = tmp_path / "faces.tar.bz2"
    data = bytearray(bz2.compress(WHOLE))
    data[place] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"faces\.tar\.bz2 is not a complete tar archive"):
        read(path)


def test_corrupt_header_is_refused(tmp_path):
    data = bytearray(WHOLE)
    second = data.index(b"a/2.JPG")
    data[second] ^= 1
    path = tmp_path / "faces.tar"
    path.write_bytes(data)
    with pytest.raises(UserError, match="is not a complete tar archive"):
        read(path)


def test_zip_empty_and_missing_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("a/1.jpg", b"x" * 2000)
    (tmp_path / "empty.tar").touch()
    for name, reason in (("faces.zip", "not a complete tar"), ("empty.tar", "not a complete"), ("none", "not exist")):
        with pytest.raises(UserError, match=f"{name} (is|does) {reason}"):
            read(tmp_path / name)


def test_large_files_are_named(tmp_path, monkeypatch):
    content = {"a/1.jpg": bytes(1000), "a/2.jpg": bytes(1001), "a/large.txt": bytes(2000)}
    for name, data in content.items():
        (tmp_path / "faces/a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).write_bytes(data)
    (tmp_path / "faces.tar").write_bytes(tar_bytes(content))
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1000)
    for path in (tmp_path / "faces", tmp_path / "faces.tar"):
        assert list(read(path)) == ["a/1.jpg"]
        assert skipped(path) == {("a/2.jpg", "too_large"), ("a/large.txt", "suffix")}


def test_bombs_are_refused(tmp_path, monkeypatch):
    """A file that is skipped costs time although it is never kept."""
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes({"a/zeros.txt": bytes(3 << 20)})))
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 4 << 20)
    assert read(path) == {}
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 1 << 20)
    with pytest.raises(UserError, match=r"bomb\.tar\.gz unpacks to more than 1,048,576 bytes, .*; do not trust"):
        read(path)


@pytest.mark.parametrize("more", [WHOLE, bytes(2 << 20), bytes(600) + b"x"])
def test_what_follows_behind_the_end_is_not_lost_in_silence(tmp_path, more):
    for path, data in ((tmp_path / "faces.tar", WHOLE + more), (tmp_path / "faces.tgz", gzip.compress(WHOLE + more))):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"is not a complete tar archive \(more follows behind its end\)"):
            read(path)


def test_pipes_and_endless_files_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with (tmp_path / "terabyte.tar").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "zero.tar").symlink_to("/dev/zero")
    empty = "more follows behind its end|seeking backwards"  # the latter from Python 3.10, which reads on
    for name, words in (("pipe", "is a pipe"), ("zero", "is a pipe"), ("terabyte", empty)):
        with pytest.raises(UserError, match=words):
            read(tmp_path / f"{name}.tar")


def header(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """An extended header with its content, padded; ``size`` is what it says of itself."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, len(content) if size is None else size
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(**values: str) -> bytes:
    """A pax header before ``CONTENT``."""
    lines = b""
    for name, value in values.items():
        line = f" {name.replace('_', '.')}={value}\n".encode()
        lines += str(len(line) + len(str(len(line) + 3))).encode() + line
    return header(tarfile.XHDTYPE, lines)


ODD_HEADERS = {
    "long pax header": (header(tarfile.XHDTYPE, bytes(2 << 20)), "a header is too long"),
    "long GNU name": (header(tarfile.GNUTYPE_LONGNAME, bytes(2 << 20)), "a header is too long"),
    "endless chain of headers": (pax(a="b") * 5000, "too many headers"),
    "many global headers": ((header(tarfile.XGLTYPE, b"9008 x=%s\n" % (b"y" * 9000)) + WHOLE[:1536]) * 3, "too many"),
    "negative size": (header(tarfile.XHDTYPE, b"x", -600), "a size is negative"),
    "length of 5000 digits": (header(tarfile.XHDTYPE, b"9" * 5000 + b" a=b\n"), "not a complete tar archive"),
    "size of a petabyte": (pax(size=str(1 << 50)), "not a complete|contains a file of 1,125,899,906,842,624 bytes"),
    "size below zero": (pax(size="-5"), "not a complete|contains a file of -5 bytes"),
    "far below zero": (pax(size="-99999999"), "not a complete|contains a file of"),
    "name that climbs": (pax(path="a/../../b.jpg"), "a path outside the archive"),
    "sparse map": (pax(GNU_sparse_map="a,b,c"), "stored with holes"),
    "sparse size": (pax(GNU_sparse_size="x"), "stored with holes"),
    "sparse 1.0": (pax(GNU_sparse_major="1", GNU_sparse_minor="0"), "stored with holes"),
    "old sparse": (header(tarfile.GNUTYPE_SPARSE, b""), "stored with holes"),
    "unknown charset": (header(tarfile.XHDTYPE, b"22 hdrcharset=\xff\xfe\xff\n"), "not a complete tar archive"),
}


@pytest.mark.parametrize("kind", ODD_HEADERS)
def test_odd_headers_are_refused_in_one_sentence(tmp_path, kind):
    data, words = ODD_HEADERS[kind]
    path = tmp_path / "odd.tar.gz"
    path.write_bytes(gzip.compress(data + WHOLE))
    with pytest.raises(UserError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < len(str(path)) + 200
    assert "\n" not in str(caught.value)


def test_names_are_kept_in_one_unicode_form(tmp_path):
    name = "Zoë/é.jpg"
    (tmp_path / "faces.tar").write_bytes(tar_bytes({unicodedata.normalize("NFD", name): b"x"}))
    file = tmp_path / "faces" / unicodedata.normalize("NFD", name)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    for path in (tmp_path / "faces", tmp_path / "faces.tar"):
        assert list(read(path)) == [unicodedata.normalize("NFC", name)]


def test_names_that_are_no_text_are_escaped(tmp_path):
    for name in (b"a\xff", b"a\xfe"):
        folder = tmp_path / "faces" / os.fsdecode(name)
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(b"x")
    with tarfile.open(tmp_path / "faces.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tmp_path / "faces", "")
    for path in (tmp_path / "faces", tmp_path / "faces.tar"):
        assert set(read(path)) == {r"a\xff/1.jpg", r"a\xfe/1.jpg"}


def test_linked_folders_are_read_once_and_other_links_named(tmp_path):
    root, store = tmp_path / "faces", tmp_path / "store"
    for file in (root / "a/1.jpg", store / "clip/2.jpg", store / "clip/deep/3.jpg"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"image")
    (root / "b").mkdir()
    targets = {
        "b/photo.jpg": store / "clip/2.jpg",
        "c": store / "clip",
        **{"b/clip": store / "clip", "d": store / "clip/deep"},  # read already
        **{"e": root / "a", "f": root, "g": tmp_path},  # this folder, and what it lies in
        **{"h.jpg": tmp_path / "nowhere", "i": root / "i"},
    }
    for name, target in targets.items():
        (root / name).symlink_to(target)
    assert list(read(root)) == ["a/1.jpg", "b/photo.jpg", "c/2.jpg", "c/deep/3.jpg"]
    assert skipped(root) == {(name, "link") for name in ("b/clip", "d", "e", "f", "g", "h.jpg", "i")}


def test_what_cannot_be_opened_is_named(tmp_path, monkeypatch):
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"image")
    iterdir = Path.iterdir

    def denied(path):
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    assert list(read(tmp_path)) == ["a/1.jpg"]
    assert skipped(tmp_path) == {("b", "unreadable")}
    with pytest.raises(PermissionError):
        read(tmp_path / "b")


def test_pipes_in_a_folder_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"image")
    os.mkfifo(tmp_path / "a/2.jpg")
    assert read(tmp_path) == {"a/1.jpg": b"image"}
    assert skipped(tmp_path) == {("a/2.jpg", "special")}

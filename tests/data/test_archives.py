"""Archives from strangers: whole, in order, or refused in one sentence."""

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from visor.core.errors import UserError
from visor.data import archives

CONTENT = {"a/1.jpg": os.urandom(700), "a/2.JPG": os.urandom(512), "b/c/3.jpg": os.urandom(3)}
MORE = {"a/readme.txt": b"no", "a/.hidden.jpg": b"no", ".cache/4.jpg": b"no"}


def tar_bytes(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def read(path: Path) -> dict[str, bytes]:
    found = archives.iterate_files(path, {".jpg"})
    return {str(name): data if isinstance(data, bytes) else data.read_bytes() for name, data in found}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archive_gives_its_images_in_order(tmp_path, mode):
    path = tmp_path / "faces"
    with tarfile.open(path, mode) as archive:
        for name, data in reversed((CONTENT | MORE).items()):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert list(read(path).items()) == list(reversed(CONTENT.items()))


def test_folder_gives_its_images_sorted(tmp_path):
    for name, data in reversed((CONTENT | MORE).items()):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    assert list(read(tmp_path).items()) == list(CONTENT.items())


def test_archive_is_streamed(tmp_path):
    path = tmp_path / "faces.tar"
    path.write_bytes(tar_bytes({f"a/{number}.jpg": os.urandom(20_000) for number in range(50)})[:500_000])
    found = archives.iterate_files(path, {".jpg"})
    assert next(found)[0] == PurePosixPath("a/0.jpg")  # the cut end of the archive was not read yet
    with pytest.raises(UserError):
        list(found)


def test_links_are_skipped(tmp_path):
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


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/etc/evil.jpg", "../evil.txt"])
def test_path_outside_is_refused(tmp_path, name):
    path = tmp_path / "faces.tar"
    path.write_bytes(tar_bytes({"a/1.jpg": b"x", name: b"x"}))
    with pytest.raises(UserError, match=rf"faces\.tar contains '{name}'"):
        read(path)


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


def test_large_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "faces.tar"
    path.write_bytes(tar_bytes({"a/large.txt": bytes(2000), "a/1.jpg": bytes(1000), "a/2.jpg": bytes(1001)}))
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1000)
    with pytest.raises(UserError, match=r"a/2\.jpg has"):
        read(path)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1001)
    assert [len(data) for data in read(path).values()] == [1000, 1001]
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 4000)
    with pytest.raises(UserError, match="unpacks to more than"):
        read(path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_fills_memory_is_refused(tmp_path, kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 2 << 20
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf() + bytes(2 << 20) + tar_bytes(CONTENT)))
    with pytest.raises(UserError, match=r"bomb\.tar\.gz is not a complete tar archive \(a header is too long\)"):
        read(path)


def test_pipes_in_a_folder_are_passed_over(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"image")
    os.mkfifo(tmp_path / "a/2.jpg")
    assert read(tmp_path) == {"a/1.jpg": b"image"}

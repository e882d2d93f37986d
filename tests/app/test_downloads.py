"""Downloads: PNGs without metadata, ZIPs with safe names, and archives encrypted with a password."""

import contextlib
import io
import os
import pty
import resource
import subprocess
import sys
import zipfile
from typing import NamedTuple

import numpy as np
import pyrage
import pytest
from PIL import Image

from visor.app import settings
from visor.app.downloads import decrypt, encrypt, make_zip, safe_stem
from visor.core.errors import UserError
from visor.data.images import encode_png

PASSWORD = "four words are enough"


class Photo(NamedTuple):
    name: str
    png: bytes


def image(seed=0, height=31, width=23):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def photos(*names):
    return [Photo(name, encode_png(image(seed))) for seed, name in enumerate(names)]


def names(content):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return file.namelist()


def zipped(*entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def test_a_png_has_no_metadata():
    content = encode_png(image(7))
    chunks, start = [], 8
    while start < len(content):
        chunks.append(content[start + 4 : start + 8])
        start += 12 + int.from_bytes(content[start : start + 4], "big")
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    decoded = Image.open(io.BytesIO(content))
    assert not decoded.getexif()
    assert decoded.info == {}
    np.testing.assert_array_equal(np.asarray(decoded), image(7))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("IMG_1", "IMG_1"),
        ("Zoë am See", "Zoë am See"),
        ("Zoe\u0308", "Zoë"),
        ("日本の写真", "日本の写真"),
        ("../../etc/passwd", "etc passwd"),
        ("C:\\Users\\me", "C Users me"),
        ("a\x00b\nc\x7f", "a b c"),
        ("photo\u202egnp.exe", "photo gnp.exe"),  # would be displayed backwards
        ("\ud800x", "x"),
        (" . ", "photo"),
        ("", "photo"),
        ("..", "photo"),
        ("NUL", "_NUL"),
        ("com1.backup", "_com1.backup"),
        ("COM¹", "_COM¹"),
        ("lpt³.png", "_lpt³.png"),
        ("é" * 300, "é" * 50),
    ],
)
def test_untrusted_names_become_file_names(name, stem):
    assert safe_stem(name) == stem
    assert safe_stem(stem) == stem
    assert len(stem.encode()) <= 100


def test_a_zip_has_unique_names_and_no_times():
    originals = photos("IMG_1", "img_1", "IMG_1", "a/b", "", "IMG_1 (2)")
    content = make_zip(originals)
    assert names(content) == [
        "IMG_1.png",
        "img_1 (2).png",
        "IMG_1 (3).png",
        "a b.png",
        "photo.png",
        "IMG_1 (2) (2).png",
    ]
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert [file.read(entry) for entry in file.infolist()] == [photo.png for photo in originals]
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {(entry.extra, entry.comment) for entry in file.infolist()} == {(b"", b"")}
    assert make_zip(originals) == content


PHOTOS = photos("one", "Zoë", "é" * 300, "é" * 300)


@pytest.fixture(scope="module")
def encrypted():
    """One archive for all tests: deriving a key from a password takes a second by design."""
    return encrypt(make_zip(PHOTOS), PASSWORD)


def test_an_archive_needs_its_password(encrypted):
    assert encrypted.startswith(b"age-encryption.org/v1")
    for secret in (b"one", b"PNG", PASSWORD.encode()):
        assert secret not in encrypted
    assert list(decrypt(encrypted, PASSWORD).values()) == [photo.png for photo in PHOTOS]
    for wrong in ("four words are enougH", "\ud800" * 12):
        with pytest.raises(UserError, match="wrong password, or the archive is damaged"):
            decrypt(encrypted, wrong)


@pytest.mark.parametrize("position", [0, 30, 1000, -1])
def test_every_part_of_an_archive_is_authenticated(position, encrypted):
    flipped = bytearray(encrypted)
    flipped[position] ^= 1
    with pytest.raises(UserError, match="wrong password, or the archive is damaged"):
        decrypt(bytes(flipped), PASSWORD)


def test_a_truncated_archive_is_rejected(encrypted):
    for truncated in (b"", encrypted[:100], encrypted[:-1]):
        with pytest.raises(UserError, match="wrong password, or the archive is damaged"):
            decrypt(truncated, PASSWORD)


HEADER = b"age-encryption.org/v1\n-> scrypt " + b"a" * 22 + b" 18\n" + b"b" * 43 + b"\n--- " + b"c" * 43 + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.replace(b" 18\n", b" 23\n"), "the archive asks for 8 GiB of memory to be opened; not opened"),
        (HEADER.replace(b" 18\n", b" 99\n"), "the archive asks for .* GiB of memory"),
        (HEADER.replace(b" 18\n", b" " + b"9" * 5000 + b"\n"), "wrong password, or the archive is damaged"),
        (HEADER.replace(b"-> scrypt", b"-> x a\n\n" * 2_000_000 + b"-> scrypt"), "wrong password, or the archive is"),
        (HEADER.replace(b"a" * 22, b"a" * 5_000_000), "wrong password, or the archive is damaged"),
    ],
)
def test_a_header_that_takes_hours_or_all_memory_is_not_parsed(content, message, monkeypatch):
    monkeypatch.setattr(pyrage.passphrase, "decrypt", lambda *_: pytest.fail("the header was parsed"))
    with pytest.raises(UserError, match=message):
        decrypt(content + bytes(1000), PASSWORD)


def test_short_passwords_are_rejected(monkeypatch):
    monkeypatch.setattr(pyrage.passphrase, "encrypt", lambda content, password: content[::-1])
    with pytest.raises(UserError, match="fewer than 12 characters; use, for example, four words"):
        encrypt(b"ab", "eleven char")
    assert encrypt(b"ab", "twelve chars") == b"ba"


PNG = encode_png(image())
UNTRUSTED = [
    (b"no zip", "contains no readable ZIP"),
    (zipped(("../out.png", PNG)), "contains '../out.png', which Visor does not create"),
    (zipped(("/etc/cron.png", PNG)), "which Visor does not create"),
    (zipped(("a\\b.png", PNG)), "which Visor does not create"),
    (zipped((".hidden.png", PNG)), "which Visor does not create"),
    (zipped(("NUL.png", PNG)), "which Visor does not create"),
    (zipped(("com².png", PNG)), "which Visor does not create"),
    (zipped(("a\u202eb.png", PNG)), "which Visor does not create"),
    (zipped((f"{'a' * 250}.png", PNG)), "which Visor does not create"),
    (zipped(("run.sh", PNG)), "which Visor does not create"),
    (zipped(("folder/", b"")), "which Visor does not create"),
    (
        zipped(("one.png", bytes(1 << 20)), compression=zipfile.ZIP_DEFLATED),
        "contains more than any archive Visor creates",
    ),
    (zipped(("one.png", os.urandom(99)), compression=zipfile.ZIP_BZIP2), "which Visor does not create"),
    (zipped(("one.png", b"#!/bin/sh")), "'one.png' in the archive is not a PNG file"),
    (
        zipped(*((f"{number}.png", PNG) for number in range(settings.PHOTOS + 1))),
        "contains more than any archive Visor creates",
    ),
    (zipped(("one.png", PNG)).replace(PNG[60:70], bytes(10), 1), "contains no readable ZIP"),
]


@pytest.fixture
def no_encryption(monkeypatch):
    """Somebody else's archive whose password is right."""
    monkeypatch.setattr("visor.app.downloads._check_header", lambda content: None)
    monkeypatch.setattr(pyrage.passphrase, "decrypt", lambda content, password: content)


@pytest.mark.parametrize(("content", "message"), UNTRUSTED)
def test_an_untrusted_archive_is_rejected_with_one_sentence(content, message, no_encryption):
    with pytest.raises(UserError, match=message) as caught:
        decrypt(content, PASSWORD)
    assert "\n" not in str(caught.value)


def test_duplicate_names_are_rejected(no_encryption):
    with pytest.warns(UserWarning, match="Duplicate"):
        content = zipped(("one.png", PNG), ("one.png", PNG))
    with pytest.raises(UserError, match="which Visor does not create"):
        decrypt(content, PASSWORD)


def test_an_archive_that_is_too_large_is_not_opened(monkeypatch):
    monkeypatch.setattr("visor.app.downloads.MAX_BUNDLE_BYTES", 100)
    with pytest.raises(UserError, match="more than 0 MiB, larger than any archive Visor creates; not opened"):
        decrypt(bytes(101), PASSWORD)


def unlock(folder, password, *arguments):
    """Run ``visor unlock`` on a terminal; return its exit code and everything that the terminal shows."""
    terminal, child = pty.openpty()
    code = "from visor.cli import main; main()"
    command = [sys.executable, "-c", code, "unlock", *arguments]
    with subprocess.Popen(command, cwd=folder, stdin=child, stdout=child, stderr=child, start_new_session=True) as run:
        os.close(child)
        shown, answered = b"", False
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(terminal, 4096):
                shown += piece
                if not answered and b"password: " in shown:  # the space is printed once the echo is off
                    answered = bool(os.write(terminal, f"{password}\n".encode()))
    os.close(terminal)
    return run.returncode, shown.decode()


def test_the_command_prompts_for_the_password_without_showing_it(tmp_path, encrypted):
    (tmp_path / "photos.zip.age").write_bytes(encrypted)
    status, shown = unlock(tmp_path, PASSWORD, "photos.zip.age", "--out", "open")
    assert status == 0, shown
    assert PASSWORD not in shown
    assert {path.read_bytes() for path in (tmp_path / "open").iterdir()} == {photo.png for photo in PHOTOS}
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "open/Zoë.png")), image(1))
    status, shown = unlock(tmp_path, PASSWORD, "photos.zip.age", "--out", "open")
    assert status == 2
    assert "one.png exists; pass another folder with --out" in shown


def test_a_command_that_fails_writes_nothing(tmp_path):
    (tmp_path / "photos.zip.age").write_bytes(b"no archive")
    for bundle, message in [
        ("missing.age", "missing.age cannot be read"),
        ("photos.zip.age", "wrong password"),
    ]:
        status, shown = unlock(tmp_path, PASSWORD, bundle, "--out", "other")
        assert status == 2
        assert f"error: {message}" in shown
    assert not (tmp_path / "other").exists()


def test_a_full_disk_is_no_wrong_use(tmp_path, encrypted):
    (tmp_path / "photos.zip.age").write_bytes(encrypted)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        status, shown = unlock(tmp_path, PASSWORD, "photos.zip.age", "--out", "open")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1
    assert "error: the file is larger than the limit of this shell or disk (open/" in shown
    assert list((tmp_path / "open").iterdir()) == []


def test_decrypting_imports_no_tensorflow_or_streamlit():
    code = "import sys, visor.app.downloads; sys.exit(bool({'tensorflow', 'streamlit'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

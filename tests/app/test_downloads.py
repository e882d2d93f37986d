"""What the app gives away: PNGs of pixels alone, ZIPs with safe names, and bundles that only their password opens."""

import contextlib
import io
import os
import pty
import subprocess
import sys
import zipfile
from typing import NamedTuple

import numpy as np
import pyrage
import pytest
from PIL import Image

from visor.app import settings
from visor.app.downloads import decrypt, encode_png, encrypt, make_zip, safe_stem
from visor.core.errors import UserError

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


def zipped(*entries, how=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as made:
        for name, content in entries:
            made.writestr(name, content)
    return file.getvalue()


def test_a_png_is_its_pixels_and_nothing_else():
    content = encode_png(image(7))
    chunks, at = [], 8
    while at < len(content):
        chunks.append(content[at + 4 : at + 8])
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    read = Image.open(io.BytesIO(content))
    assert not read.getexif()
    assert read.info == {}
    np.testing.assert_array_equal(np.asarray(read), image(7))


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
        ("photo\u202egnp.exe", "photo gnp.exe"),  # would be read backwards
        ("\ud800x", "x"),
        (" . ", "photo"),
        ("", "photo"),
        ("..", "photo"),
        ("NUL", "_NUL"),
        ("com1.backup", "_com1.backup"),
        ("é" * 300, "é" * 50),
    ],
)
def test_names_of_strangers_become_names_of_files(name, stem):
    assert safe_stem(name) == stem
    assert safe_stem(stem) == stem
    assert len(stem.encode()) <= 100


def test_a_zip_gives_each_photo_a_name_of_its_own_and_says_nothing_of_when():
    given = photos("IMG_1", "img_1", "IMG_1", "a/b", "", "IMG_1 (2)")
    content = make_zip(given)
    assert names(content) == [
        "IMG_1.png",
        "img_1 (2).png",
        "IMG_1 (3).png",
        "a b.png",
        "photo.png",
        "IMG_1 (2) (2).png",
    ]
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert [file.read(entry) for entry in file.infolist()] == [photo.png for photo in given]
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {(entry.extra, entry.comment) for entry in file.infolist()} == {(b"", b"")}
    assert make_zip(given) == content


GIVEN = photos("one", "Zoë", "é" * 300, "é" * 300)


@pytest.fixture(scope="module")
def sealed():
    """Making a key from a password takes a second, on purpose: there is one bundle for all tests."""
    return encrypt(make_zip(GIVEN), PASSWORD)


def test_a_bundle_opens_with_its_password_alone(sealed):
    assert sealed.startswith(b"age-encryption.org/v1")
    for secret in (b"one", b"PNG", PASSWORD.encode()):
        assert secret not in sealed
    assert list(decrypt(sealed, PASSWORD).values()) == [photo.png for photo in GIVEN]
    for wrong in ("four words are enougH", "\ud800" * 12):
        with pytest.raises(UserError, match="password is wrong, or the bundle was changed"):
            decrypt(sealed, wrong)


@pytest.mark.parametrize("at", [0, 30, 1000, -1])
def test_every_part_of_a_bundle_is_authenticated(at, sealed):
    flipped = bytearray(sealed)
    flipped[at] ^= 1
    with pytest.raises(UserError, match="password is wrong, or the bundle was changed"):
        decrypt(bytes(flipped), PASSWORD)


def test_a_bundle_that_was_cut_off_is_noticed(sealed):
    for cut in (b"", sealed[:100], sealed[:-1]):
        with pytest.raises(UserError, match="password is wrong, or the bundle was changed"):
            decrypt(cut, PASSWORD)


def test_short_passwords_are_refused(monkeypatch):
    monkeypatch.setattr(pyrage.passphrase, "encrypt", lambda content, password: content[::-1])
    with pytest.raises(UserError, match="fewer than 12 characters; choose a longer one"):
        encrypt(b"ab", "eleven char")
    assert encrypt(b"ab", "twelve chars") == b"ba"


ONE = encode_png(image())
STRANGERS = [
    (b"no zip", "holds no ZIP that can be read"),
    (zipped(("../out.png", ONE)), "holds '../out.png', which Visor would not have written"),
    (zipped(("/etc/cron.png", ONE)), "would not have written"),
    (zipped(("a\\b.png", ONE)), "would not have written"),
    (zipped((".hidden.png", ONE)), "would not have written"),
    (zipped(("NUL.png", ONE)), "would not have written"),
    (zipped(("a\u202eb.png", ONE)), "would not have written"),
    (zipped((f"{'a' * 250}.png", ONE)), "would not have written"),
    (zipped(("run.sh", ONE)), "would not have written"),
    (zipped(("folder/", b"")), "would not have written"),
    (zipped(("one.png", bytes(1 << 20)), how=zipfile.ZIP_DEFLATED), "more than a bundle of Visor's can"),
    (zipped(("one.png", os.urandom(99)), how=zipfile.ZIP_BZIP2), "would not have written"),
    (zipped(("one.png", b"#!/bin/sh")), "'one.png' in the bundle is no PNG"),
    (zipped(*((f"{number}.png", ONE) for number in range(settings.PHOTOS + 1))), "more than a bundle of Visor's can"),
    (zipped(("one.png", ONE)).replace(ONE[60:70], bytes(10), 1), "holds no ZIP that can be read"),
]


@pytest.fixture
def unsealed(monkeypatch):
    """A stranger who knows the password."""
    monkeypatch.setattr(pyrage.passphrase, "decrypt", lambda content, password: content)


@pytest.mark.parametrize(("content", "sentence"), STRANGERS)
def test_a_strangers_bundle_is_refused_in_one_sentence(content, sentence, unsealed):
    with pytest.raises(UserError, match=sentence) as caught:
        decrypt(content, PASSWORD)
    assert "\n" not in str(caught.value)


def test_two_entries_of_one_name_are_refused(unsealed):
    with pytest.warns(UserWarning, match="Duplicate"):
        content = zipped(("one.png", ONE), ("one.png", ONE))
    with pytest.raises(UserError, match="would not have written"):
        decrypt(content, PASSWORD)


def test_a_bundle_that_is_too_large_is_not_even_opened(monkeypatch):
    monkeypatch.setattr("visor.app.downloads.MAX_BUNDLE_BYTES", 100)
    with pytest.raises(UserError, match="more than 0 MiB, which no bundle of Visor's has"):
        decrypt(bytes(101), PASSWORD)


def unlock(folder, password, *words):
    """Run ``visor unlock`` on a terminal; return its exit code and all that this shows."""
    terminal, theirs = pty.openpty()
    code = "from visor.cli import main; main()"
    command = [sys.executable, "-c", code, "unlock", *words]
    with subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as run:
        os.close(theirs)
        shown, asked = b"", False
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(terminal, 4096):
                shown += piece
                if not asked and b"password: " in shown:  # the space is said when the echo is off
                    asked = bool(os.write(terminal, f"{password}\n".encode()))
    os.close(terminal)
    return run.returncode, shown.decode()


def test_the_command_asks_for_the_password_without_showing_it(tmp_path, sealed):
    (tmp_path / "photos.zip.age").write_bytes(sealed)
    status, shown = unlock(tmp_path, PASSWORD, "photos.zip.age", "--out", "open")
    assert status == 0, shown
    assert PASSWORD not in shown
    assert {path.read_bytes() for path in (tmp_path / "open").iterdir()} == {photo.png for photo in GIVEN}
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "open/Zoë.png")), image(1))
    status, shown = unlock(tmp_path, PASSWORD, "photos.zip.age", "--out", "open")
    assert status == 1
    assert "one.png exists; name another folder by --out" in shown


def test_a_command_that_fails_writes_nothing(tmp_path):
    (tmp_path / "photos.zip.age").write_bytes(b"no bundle")
    for bundle, sentence in [
        ("missing.age", "missing.age cannot be read"),
        ("photos.zip.age", "the password is wrong"),
    ]:
        status, shown = unlock(tmp_path, PASSWORD, bundle, "--out", "other")
        assert status == 1
        assert f"error: {sentence}" in shown
    assert not (tmp_path / "other").exists()


def test_opening_a_bundle_starts_no_network():
    code = "import sys, visor.app.downloads; sys.exit(bool({'tensorflow', 'streamlit'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

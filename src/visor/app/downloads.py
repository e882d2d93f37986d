"""What goes out: PNGs of pixels alone, a ZIP of them, and that ZIP locked with a password as an age file.

age (https://age-encryption.org/v1) encrypts and authenticates: scrypt makes the key, ChaCha20-Poly1305 seals 64 KiB
at a time, so that a changed or shortened file is noticed. ``age -d`` opens what is locked here.
"""

import io
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath

import pyrage
from PIL import Image

from visor.app import settings
from visor.core.errors import UserError
from visor.core.types import ImageArray

MIN_PASSWORD_LENGTH = 12  # characters
STEM_BYTES, NAME_BYTES = 100, 200  # of a file's name: as it is written, and as it is taken from a stranger's ZIP
FORBIDDEN = frozenset('<>:"/\\|?*')  # in names, somewhere
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BUNDLE_BYTES = settings.PHOTOS * (
    3 * settings.PIXELS + (4 << 20)
)  # of a bundle: PNGs of noise are as large as their pixels


def encode_png(image: ImageArray) -> bytes:
    """Return uint8 (h, w, 3) as a PNG file: pixels alone, no EXIF, place, time or text."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=4)  # 6 takes twice as long, for 1 % of the size
    return file.getvalue()


def safe_stem(name: str) -> str:
    """Return a stranger's name as that of a file on any system, without an ending; "photo" if nothing is left."""
    plain = unicodedata.normalize("NFC", name)
    kept = "".join(letter if letter.isprintable() and letter not in FORBIDDEN else " " for letter in plain)
    stem = " ".join(kept.split()).encode()[:STEM_BYTES].decode(errors="ignore").strip(". ")
    return f"_{stem}" if _is_device(stem) else stem or "photo"


def make_zip(photos: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a ZIP of PNG files and what they are called, each by a name of its own, without a word about when."""
    file, taken = io.BytesIO(), set[str]()
    with zipfile.ZipFile(file, "w") as made:  # stored: a PNG gets no smaller
        for name, photo in photos:
            made.writestr(zipfile.ZipInfo(f"{_unique_name(safe_stem(name), taken)}.png"), photo)
    return file.getvalue()


def encrypt(content: bytes, password: str) -> bytes:
    """Return a ZIP as an age file that opens with the password alone.

    Raises:
        UserError: the password is too short.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise UserError(
            f"the password has fewer than {MIN_PASSWORD_LENGTH} characters; choose a longer one, say four words"
        )
    return pyrage.passphrase.encrypt(content, password)


def decrypt(content: bytes, password: str) -> dict[str, bytes]:
    """Return the PNG files in a locked bundle by their names; it may be anybody's.

    Raises:
        UserError: the password is wrong, the bundle was changed, or what is in it is no bundle of Visor's.
    """
    if len(content) > MAX_BUNDLE_BYTES:
        raise UserError(
            f"the bundle has more than {MAX_BUNDLE_BYTES >> 20} MiB, which no bundle of Visor's has; leave it shut"
        )
    try:
        plain = pyrage.passphrase.decrypt(content, password)
    except (pyrage.DecryptError, ValueError):
        raise UserError(
            "the password is wrong, or the bundle was changed or cut off; type it again, or download the bundle anew"
        ) from None
    try:
        with zipfile.ZipFile(io.BytesIO(plain)) as file:
            return _photos(file, len(plain))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"the bundle holds no ZIP that can be read ({error}); download it anew") from None


def _photos(file: zipfile.ZipFile, most: int) -> dict[str, bytes]:
    entries = file.infolist()
    if len(entries) > settings.PHOTOS or sum(entry.file_size for entry in entries) > most:
        raise UserError("the bundle holds more than a bundle of Visor's can; leave it shut")
    photos: dict[str, bytes] = {}
    for entry in entries:
        if not _is_safe(entry.filename) or entry.compress_type != zipfile.ZIP_STORED or entry.filename in photos:
            raise UserError(f"the bundle holds {entry.filename!r}, which Visor would not have written; leave it shut")
        content = file.read(entry)
        if not content.startswith(SIGNATURE):
            raise UserError(f"{entry.filename!r} in the bundle is no PNG; leave the bundle shut")
        photos[entry.filename] = content
    return photos


def _is_safe(name: str) -> bool:
    """Return whether a name is that of a PNG in the very folder, on any system."""
    stem = PurePosixPath(name).stem
    return (
        name == f"{stem}.png"
        and name.isprintable()
        and not FORBIDDEN & set(name)
        and not name.startswith(".")
        and not _is_device(name)
        and len(name.encode()) <= NAME_BYTES
    )


def _is_device(name: str) -> bool:
    """Return whether Windows takes a name for that of a device, whatever follows its first dot."""
    return name.partition(".")[0].strip().casefold() in DEVICES


def _unique_name(stem: str, taken: set[str]) -> str:
    """Return the name, numbered if it is taken: some systems make no difference between IMG and img."""
    number, free = 1, stem
    while free.casefold() in taken:
        number += 1
        free = f"{stem} ({number})"
    taken.add(free.casefold())
    return free

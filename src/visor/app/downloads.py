"""Downloads: ZIP archives of PNG files, and the same encrypted with a password as an age file.

age (https://age-encryption.org/v1) encrypts and authenticates: scrypt derives the key, ChaCha20-Poly1305 seals 64 KiB
at a time, so that a changed or truncated file is detected. ``age -d`` decrypts what is encrypted here.
"""

import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath

import pyrage

from visor.app import settings
from visor.core.errors import UserError, shorten

MIN_PASSWORD_LENGTH = 12  # characters
STEM_BYTES, NAME_BYTES = 100, 200  # limits on names: of files written, and in archives that are read
FORBIDDEN = frozenset('<>:"/\\|?*')  # in file names of some system
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789¹²³")}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BUNDLE_BYTES = settings.MAX_SESSION_MEMORY  # that holds each result as pixels, too
# All that the header of an age file with a password may hold; n is the logarithm of scrypt's cost, 2^n kB of memory.
AGE_HEADER = re.compile(
    rb"age-encryption\.org/v1\n-> scrypt [A-Za-z0-9+/]{22} (?P<n>[1-9][0-9]?)\n[A-Za-z0-9+/]{43}\n"
    rb"--- [A-Za-z0-9+/]{43}\n"
)
WRONG_PASSWORD = "wrong password, or the archive is damaged; try again or download it again"
MAX_SCRYPT_COST = 20  # 1 GiB and some seconds; age itself chooses 18 or 19


def safe_stem(name: str) -> str:
    """Return an untrusted name as a file name for any system, without suffix; "photo" if nothing is left."""
    name = unicodedata.normalize("NFC", name)
    printable = "".join(letter if letter.isprintable() and letter not in FORBIDDEN else " " for letter in name)
    stem = " ".join(printable.split()).encode()[:STEM_BYTES].decode(errors="ignore").strip(". ")
    return f"_{stem}" if _is_device(stem) else stem or "photo"


def make_zip(photos: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a ZIP of PNG files (name, content) under unique safe names, without times."""
    file, taken = io.BytesIO(), set[str]()
    with zipfile.ZipFile(file, "w") as archive:  # stored: PNG does not compress
        for name, photo in photos:
            archive.writestr(zipfile.ZipInfo(f"{_unique_name(safe_stem(name), taken)}.png"), photo)
    return file.getvalue()


def encrypt(content: bytes, password: str) -> bytes:
    """Return a ZIP as an age file.

    Raises:
        UserError: The password is too short.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise UserError(f"the password has fewer than {MIN_PASSWORD_LENGTH} characters; use, for example, four words")
    return pyrage.passphrase.encrypt(content, password)


def decrypt(content: bytes, password: str) -> dict[str, bytes]:
    """Return the PNG files of an encrypted archive, which is untrusted, by name.

    Raises:
        UserError: The password is wrong, the archive was changed, or Visor cannot have created it.
    """
    if len(content) > MAX_BUNDLE_BYTES:
        raise UserError(f"more than {MAX_BUNDLE_BYTES >> 20} MiB, larger than any archive Visor creates; not opened")
    _check_header(content)
    try:
        content = pyrage.passphrase.decrypt(content, password)
    except (pyrage.DecryptError, ValueError):
        raise UserError(WRONG_PASSWORD) from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read_photos(archive, len(content))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"the archive contains no readable ZIP ({shorten(error)}); download it again") from None


def _check_header(content: bytes) -> None:
    """Check the header of an age file: its parser needs hours for a long one, and a password takes what memory it asks.

    Raises:
        UserError: It is not that of a file with a password, or too costly.
    """
    header = AGE_HEADER.match(content)
    if header is None:
        raise UserError(WRONG_PASSWORD)
    if int(header["n"]) > MAX_SCRYPT_COST:
        raise UserError(f"the archive asks for {1 << int(header['n']) - 20} GiB of memory to be opened; not opened")


def _read_photos(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > settings.PHOTOS or sum(entry.file_size for entry in entries) > max_bytes:
        raise UserError("the archive contains more than any archive Visor creates; not extracted")
    photos: dict[str, bytes] = {}
    for entry in entries:
        name = entry.filename
        if not _is_safe(name) or entry.compress_type != zipfile.ZIP_STORED or name in photos:
            raise UserError(f"the archive contains {shorten(repr(name))}, which Visor does not create; not extracted")
        photos[name] = archive.read(entry)
        if not photos[name].startswith(SIGNATURE):
            raise UserError(f"{shorten(repr(name))} in the archive is not a PNG file; not extracted")
    return photos


def _is_safe(name: str) -> bool:
    """Return whether this is the name of a PNG file, without folders, on any system."""
    return (
        name == f"{PurePosixPath(name).stem}.png"
        and name.isprintable()
        and not FORBIDDEN & set(name)
        and not name.startswith(".")
        and not _is_device(name)
        and len(name.encode()) <= NAME_BYTES
    )


def _is_device(name: str) -> bool:
    """Return whether Windows takes a name for a device, whatever follows its first dot."""
    return name.partition(".")[0].strip().casefold() in DEVICES


def _unique_name(stem: str, taken: set[str]) -> str:
    """Return the name, numbered if it is taken: some systems do not distinguish IMG from img."""
    number, name = 1, stem
    while name.casefold() in taken:
        number += 1
        name = f"{stem} ({number})"
    taken.add(name.casefold())
    return name

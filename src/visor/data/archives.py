"""Untrusted trees of files: a folder is walked, a tar archive is streamed and never unpacked to disk.

Whatever is not taken is handed on by name, so that a source can count it: nothing is passed over in silence.
"""

import bz2
import gzip
import lzma
import tarfile
import unicodedata
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from visor.core.errors import UserError, shorten
from visor.core.files import MAX_FILE_BYTES

MAX_HEADER_BYTES = 1 << 14  # of one extended header; tarfile may need the square of it in time and memory
MAX_GLOBAL_BYTES = 1 << 14  # of all headers that hold for the rest of an archive: they stay in memory
MAX_HEADERS = 4  # extended headers of one file; each is parsed inside the one before
MAX_NAME = 4096  # characters
MAX_TOTAL_BYTES = 1 << 38
MAX_PADDING = 1 << 20
MAX_RATIO, RATIO_FREE_BYTES = 100, 1 << 28  # images hardly shrink: what unpacks to far more than its size is a bomb
DECOMPRESSORS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
EXTENDED_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
DAMAGE = (tarfile.TarError, EOFError, OSError, OverflowError, RecursionError, ValueError, zlib.error, lzma.LZMAError)


class FoundFile(NamedTuple):
    """A file to take: its name below the root, and a ``Path`` in a folder or the bytes from an archive."""

    name: PurePosixPath
    content: Path | bytes


class SkippedFile(NamedTuple):
    """A file, link or folder that is not taken: its name below the root, and why."""

    name: str
    reason: str


def normal_name(name: str) -> str:
    """Return a name of a file in Unicode's form NFC, as systems differ in how they store é; other bytes are escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def iterate_files(path: Path, suffixes: Collection[str]) -> Iterator[FoundFile | SkippedFile]:
    """Yield each file that ends in one of ``suffixes`` (lower case), and the name of everything else.

    A folder is walked in sorted order; a .tar, .tar.gz, .tar.bz2 or .tar.xz is read in its own order, with one file
    at a time in memory. A linked folder is walked once, if it lies outside ``path``. Names are in the form NFC.

    Raises:
        UserError: ``path`` is missing or not an archive, or it is truncated, corrupt, names a path outside itself, or
            exceeds the limits of this module.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; correct the path in params.yaml")
    if path.is_dir():
        return _walk(path, suffixes)
    if not path.is_file():  # reading a pipe might never end
        raise UserError(f"{path} is a pipe, a socket or a device; name a folder or an archive")
    return _stream(path, suffixes)


def _find_reason(name: PurePosixPath, size: int, suffixes: Collection[str]) -> str | None:
    """Return why a regular file is not taken, None if it is."""
    if any(part.startswith(".") for part in name.parts):
        return "hidden"
    if name.suffix.lower() not in suffixes:
        return "suffix"
    return "too_large" if size > MAX_FILE_BYTES else None


def _walk(root: Path, suffixes: Collection[str]) -> Iterator[FoundFile | SkippedFile]:
    followed: set[Path] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            if folder == root:
                raise
            yield SkippedFile(_relative(folder, root), "unreadable")
            continue
        inner = []
        for entry in entries:
            try:
                found = _look_at(entry, root, suffixes, followed)
            except OSError:
                found = SkippedFile(_relative(entry, root), "unreadable")
            if found is None:
                inner.append(entry)
            else:
                yield found
        folders += reversed(inner)


def _relative(entry: Path, root: Path) -> str:
    return normal_name(entry.relative_to(root).as_posix())


def _leads_elsewhere(link: Path, root: Path, followed: set[Path]) -> bool:
    """Return whether a link leads to a folder that is not walked otherwise, and note where it leads."""
    target, top = link.resolve(), root.resolve()
    if target.is_relative_to(top) or top.is_relative_to(target) or followed & {target, *target.parents}:
        return False
    followed.add(target)
    return True


def _look_at(entry: Path, root: Path, suffixes: Collection[str], followed: set[Path]) -> FoundFile | SkippedFile | None:
    """Return what an entry of a folder is; None if it is a folder to walk."""
    name = PurePosixPath(_relative(entry, root))
    reason: str | None
    if entry.is_dir():
        if not entry.is_symlink() or _leads_elsewhere(entry, root, followed):
            return None
        reason = "link"
    elif entry.is_file():
        reason = _find_reason(name, entry.stat().st_size, suffixes)
    else:
        reason = "link" if entry.is_symlink() else "special"
    return SkippedFile(str(name), reason) if reason else FoundFile(name, entry)


def _stream(path: Path, suffixes: Collection[str]) -> Iterator[FoundFile | SkippedFile]:
    size = path.stat().st_size
    with (
        path.open("rb") as raw,
        tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        magic = raw.read(6)
        raw.seek(0)
        opener = next((opener for start, opener in DECOMPRESSORS.items() if magic.startswith(start)), None)
        limit = min(MAX_TOTAL_BYTES, max(RATIO_FREE_BYTES, MAX_RATIO * size))
        stream: Any = _LimitedReader(opener(raw) if opener else raw, limit, path)
        try:
            with _StrictArchive.open(fileobj=stream, mode="r|") as archive:
                for member in _members(archive, path):
                    yield _read_member(archive, member, suffixes)
                    bar.update(raw.tell() - bar.n)
                _check_end(archive.fileobj)
        except DAMAGE as error:
            raise UserError(
                f"{path} is not a complete tar archive ({shorten(error)}); "
                "download it again, or name a folder or .tar.gz"
            ) from None


def _check_end(stream: Any) -> None:
    """Read the padding and, of a compressed archive, the checksum; raise ReadError if more files follow, unseen."""
    size = 0
    while piece := stream.read(1 << 16):
        size += len(piece)
        if piece.strip(b"\0") or size > MAX_PADDING:
            raise tarfile.ReadError("more follows behind its end")


class _LimitedReader:
    """Reads a stream up to a limit of bytes, which a decompression bomb would exceed."""

    def __init__(self, stream: Any, limit: int, path: Path) -> None:
        self.stream, self.limit, self.path, self.count = stream, limit, path, 0

    def read(self, size: int) -> bytes:
        piece: bytes = self.stream.read(size)
        self.count += len(piece)
        if self.count > self.limit:
            raise UserError(
                f"{self.path} unpacks to more than {self.limit:,} bytes, far more than its size; do not trust this file"
            )
        return piece


class _StrictHeader(tarfile.TarInfo):
    """A header whose damage is an error; ``tarfile`` itself would stop as if the archive ended there."""

    def _proc_member(self, archive: "_StrictArchive") -> tarfile.TarInfo:
        if self.size < 0:
            raise tarfile.ReadError("a size is negative")
        is_extended = self.type in EXTENDED_HEADERS
        # Extended headers are read into memory completely.
        if is_extended and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too long")
        archive.headers = archive.headers + 1 if is_extended else 0
        archive.global_bytes += self.size if self.type == tarfile.XGLTYPE else 0
        if archive.headers > MAX_HEADERS or archive.global_bytes > MAX_GLOBAL_BYTES:
            raise tarfile.ReadError("too many headers")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _refuse_sparse(self, *_: Any) -> tarfile.TarInfo:
        """Refuse a file with holes: their table may be of any length, and no image has them."""
        raise tarfile.ReadError("a file is stored with holes")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_StrictHeader":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


class _StrictArchive(tarfile.TarFile):
    tarinfo = _StrictHeader
    headers = global_bytes = 0


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield all members but folders; the names of all are checked."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # so that memory does not grow with the archive
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or len(member.name) > MAX_NAME:
            raise UserError(
                f"{path} contains {shorten(ascii(member.name))}, a path outside the archive or an endless one; "
                "do not trust this file"
            )
        if not 0 <= member.size <= MAX_TOTAL_BYTES:
            raise UserError(f"{path} contains a file of {member.size:,} bytes; do not trust this file")
        if not member.isdir():
            yield member


def _read_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, suffixes: Collection[str]
) -> FoundFile | SkippedFile:
    name = PurePosixPath(normal_name(member.name))
    if not member.isfile():
        return SkippedFile(str(name), "link" if member.issym() or member.islnk() else "special")
    if reason := _find_reason(name, member.size, suffixes):
        return SkippedFile(str(name), reason)
    file = archive.extractfile(member)
    return FoundFile(name, file.read() if file else b"")

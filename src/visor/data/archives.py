"""Untrusted trees of files: a folder is walked, a tar archive is streamed and never unpacked to disk."""

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.files import MAX_FILE_BYTES

MAX_HEADER_BYTES = 1 << 20
MAX_TOTAL_BYTES = 1 << 38
DECOMPRESSORS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}

ArchiveEntry = tuple[PurePosixPath, Path | bytes]


class _StrictHeader(tarfile.TarInfo):
    """A header whose damage is an error; ``tarfile`` itself would stop as if the archive ended there."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # Extended headers are read into memory completely.
        if not self.isreg() and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too long")
        return super()._proc_member(archive)  # type: ignore[misc]

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_StrictHeader":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def iterate_files(path: Path, suffixes: Collection[str]) -> Iterator[ArchiveEntry]:
    """Yield (name relative to ``path``, content) of each file that ends in one of ``suffixes`` (lower case).

    The content is a ``Path`` in a folder, walked in sorted order, and ``bytes`` in a .tar, .tar.gz, .tar.bz2 or
    .tar.xz, in the archive's order; one file at a time is in memory. Hidden files are skipped, and so are links and
    devices in an archive.

    Raises:
        UserError: ``path`` is missing or not an archive, or it is truncated, corrupt, names a path outside itself, or
            exceeds the limits of this module.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; correct the path in params.yaml")
    for name, content in _walk(path) if path.is_dir() else _stream(path, suffixes):
        if name.suffix.lower() in suffixes and not any(part.startswith(".") for part in name.parts):
            yield name, content


def _walk(root: Path) -> Iterator[ArchiveEntry]:
    for top in tqdm(sorted(root.iterdir()), desc="folders", unit="", disable=None, leave=False):
        for directory, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                file = Path(directory, name)
                if file.is_file():  # no pipe, no device
                    yield PurePosixPath(file.relative_to(root).as_posix()), file


def _stream(path: Path, suffixes: Collection[str]) -> Iterator[ArchiveEntry]:
    with (
        path.open("rb") as raw,
        tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        magic = raw.read(6)
        raw.seek(0)
        opener = next((opener for start, opener in DECOMPRESSORS.items() if magic.startswith(start)), None)
        stream = opener(raw) if opener else raw
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader) as archive:
                for member in _members(archive, path):
                    name = PurePosixPath(member.name)
                    if name.suffix.lower() in suffixes:
                        yield name, _content(archive, member, path)
                    bar.update(raw.tell() - bar.n)
            while stream.read(1 << 20):  # the checksum of a compressed file comes last
                pass
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise UserError(
                f"{path} is not a complete tar archive ({error}); download it again, or name a folder or .tar.gz"
            ) from None


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files; names and sizes are checked for every member."""
    total = 0
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # so that memory does not grow with the archive
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise UserError(f"{path} contains {member.name!r}, a path outside the archive; do not trust this file")
        total += member.size
        if total > MAX_TOTAL_BYTES:
            raise UserError(f"{path} unpacks to more than {MAX_TOTAL_BYTES >> 30} GiB; do not trust this file")
        if member.isfile():
            yield member


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    if member.size > MAX_FILE_BYTES:
        raise UserError(
            f"{path}: {member.name} has {member.size >> 20} MiB, more than {MAX_FILE_BYTES >> 20}; "
            "unpack the archive and name the folder"
        )
    file = archive.extractfile(member)
    return file.read() if file else b""

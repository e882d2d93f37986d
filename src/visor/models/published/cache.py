"""The user's cache of published networks: ``SHA256/FILE``, with the licence beside it, checked whenever it is read."""

import hashlib
import os
import tarfile
import zlib
from pathlib import Path

from visor.core.errors import FULL, UserError, first_line
from visor.core.files import atomic_write, sha256_of_file
from visor.models.published.catalogue import ArchiveMember, PackageArchive, PublishedNetwork

MAX_LICENCE_BYTES = 1 << 20
LICENCE = "LICENSE"


def cache_folder() -> Path:
    """Return ``$VISOR_NETWORKS``, else ``$XDG_CACHE_HOME/visor/networks``, else ``~/.cache/visor/networks``."""
    if chosen := os.environ.get("VISOR_NETWORKS"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visor" / "networks"


def member_path(member: ArchiveMember) -> Path:
    """Return where a file of a network lies once it is fetched."""
    return cache_folder() / member.sha256 / member.file


def is_missing(network: PublishedNetwork) -> bool:
    """Return whether a file of the network is not there."""
    return not all(member_path(member).is_file() for member in network.members)


def is_intact(network: PublishedNetwork) -> bool:
    """Return whether all files of the network are there and are those of the catalogue."""
    try:
        read_files(network)
    except UserError:
        return False
    return True


def read_files(network: PublishedNetwork) -> dict[str, bytes]:
    """Return the files of a network by name; size and SHA-256 are checked before anyone parses a byte.

    Raises:
        UserError: A file is missing, or is not that of the catalogue.
    """
    again = f"run visor networks fetch {network.name}"
    if is_missing(network):
        raise UserError(f"{network.name} is not here; {again} ({network.megabytes}, once)")
    files = {}
    for member in network.members:
        path = member_path(member)
        try:
            with path.open("rb") as file:
                content, size = file.read(member.bytes + 1), os.fstat(file.fileno()).st_size
        except OSError as error:
            where = f"{network.name}: {path}"
            raise UserError(f"{where} cannot be read ({error.strerror}); delete it and {again}") from None
        if difference := _difference(size, hashlib.sha256(content).hexdigest(), member):
            raise UserError(f"{network.name}: {path} has {difference}; delete it and {again}")
        files[member.file] = content
    return files


def store(network: PublishedNetwork, archive: Path) -> None:
    """Copy the files of a network and its licence from the package's archive into the cache.

    Nothing is unpacked: of the archive's files only those that the catalogue names are read, and each is written under
    the catalogue's name, all of it or nothing.

    Raises:
        UserError: The archive or a file in it is not that of the catalogue, or the cache cannot be written.
        OSError: The disk is full.
    """
    _check_archive(network, archive)
    files = _extract(network, archive)
    try:
        for member in network.members:
            path = member_path(member)
            for target, content in ((path.with_name(LICENCE), files[network.licence_file]), (path, files[member.path])):
                with atomic_write(target) as temporary:
                    temporary.write_bytes(content)
    except OSError as error:
        if error.errno in FULL:
            raise
        advice = "name another folder in VISOR_NETWORKS"
        raise UserError(f"{network.name}: {cache_folder()} cannot be written ({error.strerror}); {advice}") from None


def _check_archive(network: PublishedNetwork, archive: Path) -> None:
    """Compare the archive with the catalogue before it is opened."""
    expected = network.archive
    try:
        size = archive.stat().st_size
        digest = sha256_of_file(archive) if size == expected.bytes else ""
    except OSError as error:
        raise UserError(
            f"{network.name}: {archive} cannot be read ({error.strerror}); give the archive {expected.file}"
        ) from None
    if difference := _difference(size, digest, expected):
        raise UserError(f"{network.name}: {archive} has {difference}; fetch {expected.file} again")


def _difference(size: int, digest: str, expected: ArchiveMember | PackageArchive) -> str:
    """Return how a file differs from what the catalogue says of it, empty if it does not."""
    if size != expected.bytes:
        return f"{size:,} bytes, not {expected.bytes:,}"
    return f"SHA-256 {digest}, not {expected.sha256}" if digest != expected.sha256 else ""


def _extract(network: PublishedNetwork, archive: Path) -> dict[str, bytes]:
    """Return the members of a network and its licence by their names in the archive, all checked."""
    members = {member.path: member for member in network.members}
    sizes = {path: member.bytes for path, member in members.items()}
    where = f"{network.name}: {archive}"
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for info in tar:
                if info.name not in (*members, network.licence_file):
                    continue
                if not info.isreg() or info.size > sizes.get(info.name, MAX_LICENCE_BYTES):
                    raise UserError(f"{where}: {info.name} is not the file of the catalogue; do not trust this archive")
                file = tar.extractfile(info)
                files[info.name] = file.read() if file else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{where} is not a complete .tar.gz ({first_line(error)}); fetch it again") from None
    for path in (*members, network.licence_file):
        if path not in files:
            raise UserError(f"{where} has no {path}; give the archive {network.archive.file}")
    for path, member in members.items():
        content = files[path]
        if difference := _difference(len(content), hashlib.sha256(content).hexdigest(), member):
            raise UserError(f"{where}: {path} has {difference}; do not trust this archive")
    return files

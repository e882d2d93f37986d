"""The catalogue of data sets, ``assets/datasets.yaml``: what each is, on what terms, and where it comes from.

Where nobody publishes a checksum, that of the first download is kept in ``assets/datasets.lock``: it cannot tell
whether that download was right, but every later one, on whatever machine, has to be the same file.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from visor.core.config import read_yaml, validate_block
from visor.core.errors import UserError
from visor.core.files import read_json, sha256_of_file, write_json
from visor.core.params import ParamsBlock
from visor.data.download import check_sha256

CATALOGUE, LOCK = Path("assets/datasets.yaml"), Path("assets/datasets.lock")


class DatasetEntry(ParamsBlock):
    """A source in the catalogue; null where it is not published or does not apply."""

    title: str
    licence: str
    citation: str | None
    page: str | None
    url: str | None
    sha256: str | None
    layout: str


def read_catalogue(name: str) -> DatasetEntry:
    """Return the entry ``name`` of ``assets/datasets.yaml``.

    Raises:
        UserError: The catalogue or the entry is missing or wrong.
    """
    return validate_block(DatasetEntry, read_yaml(CATALOGUE).get(name, {}), f"{CATALOGUE}: {name}")


def verify_unpublished(name: str, path: Path) -> None:
    """Compare a file, of which no checksum is published, with the first download, or note that it is the first.

    Raises:
        UserError: It is another file, or the lock is damaged.
    """
    lock = read_json(LOCK) if LOCK.exists() else {}
    if not isinstance(lock, dict) or not all(isinstance(known, str) for known in lock.values()):
        raise UserError(f"{LOCK} does not map names to checksums; restore it with `git checkout {LOCK}`, or delete it")
    known, actual = lock.get(name), sha256_of_file(path)
    if known is None:
        write_json(LOCK, lock | {name: actual})
        tqdm.write(
            f"{path} has SHA-256 {actual}, now noted in {LOCK}: none is published to compare it with; commit the file",
            file=sys.stderr,
        )
    elif actual != check_sha256(known, f"{LOCK}: {name}"):
        raise UserError(
            f"{path} has SHA-256 {actual}, but {LOCK} notes {known} of the first download; delete {path} and fetch it"
            f" again, or delete that line of the lock if the new file is the right one"
        )

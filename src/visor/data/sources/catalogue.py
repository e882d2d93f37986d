"""The catalogue of data sets, ``assets/datasets.yaml``: what each is, on what terms, and where it comes from."""

from pathlib import Path

from visor.core.config import read_yaml, validate_block
from visor.core.params import ParamsBlock

CATALOGUE = Path("assets/datasets.yaml")


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

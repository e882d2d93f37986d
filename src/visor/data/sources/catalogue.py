"""The catalogue of data sets, ``assets/datasets.yaml``: what each is, on what terms, and where it comes from."""

from pathlib import Path

from ruamel.yaml import YAML

from visor.core.config import validate_block
from visor.core.errors import UserError
from visor.core.params import ParamsBlock

CATALOGUE = Path("assets/datasets.yaml")


class Entry(ParamsBlock):
    """A source in the catalogue; null where it is not published or does not apply."""

    title: str
    licence: str
    citation: str | None
    page: str | None
    url: str | None
    sha256: str | None
    layout: str


def read_catalogue(name: str) -> Entry:
    """Return the entry ``name`` of ``assets/datasets.yaml``.

    Raises:
        UserError: the catalogue or the entry is missing or wrong.
    """
    if not CATALOGUE.exists():
        raise UserError(f"{CATALOGUE} is missing; run from the project's root")
    return validate_block(Entry, YAML(typ="safe").load(CATALOGUE).get(name, {}), f"{CATALOGUE}: {name}")

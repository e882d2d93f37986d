"""Face comparison as a black box: a range on this machine to practise on, and clients for services elsewhere.

The range is ``service.py`` (HTTP; ``serving.py`` runs it), ``ledger.py`` (keys, budgets, rates), ``matching.py`` (what
it sees in pictures) and ``calibration.py`` (its threshold); it takes networks as functions. A client is one file that
ends in ``connect(…) -> Service``, chosen by ``services.py``; ``memory.py`` keeps its answers, ``transfer.py`` asks it
about clean and attacked photos, which ``albums.py`` finds.
"""

from collections.abc import Callable
from pathlib import Path

from visor.core.errors import UserError
from visor.services import json_service, mock_client, rekognition
from visor.services.base import ComparisonService

SERVICES: dict[str, Callable[[str | None], ComparisonService]] = {
    "range": mock_client.connect,
    "rekognition": rekognition.connect,
}


def open_service(name: str, url: str | None) -> ComparisonService:
    """Return the service of a registry name or of a file ``*.yaml``; ``url`` overrides its address.

    Raises:
        UserError: no such service, no key in the environment, or a wrong description.
    """
    if name in SERVICES:
        return SERVICES[name](url)
    if Path(name).suffix in (".yaml", ".yml"):
        return json_service.connect(Path(name), url)
    raise UserError(f"--service {name} is not known; choose from {', '.join(SERVICES)}, or describe it in a FILE.yaml")

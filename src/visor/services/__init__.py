"""Face-comparison services: a mock service to attack on this machine, and clients of services elsewhere.

``mock_service.py`` serves what ``face_matching.py`` computes. A client is a module of ``SERVICES`` with
``connect(url)``, or a description FILE.yaml (``json_service.py``).

Example:
    >>> open_service("azure", None)
    Traceback (most recent call last):
    visor.core.errors.UserError: --service azure is unknown; choose mock or rekognition, or pass a description FILE.yaml
"""

from collections.abc import Callable
from pathlib import Path

from visor.core.errors import UserError
from visor.services import json_service, mock_client, rekognition
from visor.services.base import ComparisonService

SERVICES: dict[str, Callable[[str | None], ComparisonService]] = {
    "mock": mock_client.connect,
    "rekognition": rekognition.connect,
}
FORMER_NAMES = {"range": "mock"}


def open_service(name: str, url: str | None) -> ComparisonService:
    """Return the service of a registry name or of a description ``*.yaml``; ``url`` replaces its address.

    Raises:
        UserError: There is no such service, no key in the environment, or the description is wrong.
    """
    if connect := SERVICES.get(FORMER_NAMES.get(name, name)):
        return connect(url)
    if Path(name).suffix in (".yaml", ".yml"):
        return json_service.connect(Path(name), url)
    raise UserError(f"--service {name} is unknown; choose {' or '.join(SERVICES)}, or pass a description FILE.yaml")

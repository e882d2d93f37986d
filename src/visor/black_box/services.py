"""Which service: one of ours by its name, or any that a YAML file describes."""

from collections.abc import Callable
from pathlib import Path

from visor.black_box import json_api, rekognition, visor_range
from visor.black_box.answers import Service
from visor.errors import UserError

SERVICES: dict[str, Callable[[str | None], Service]] = {
    "range": visor_range.connect,
    "rekognition": rekognition.connect,
}


def open_service(name: str, url: str | None) -> Service:
    """Return the service of a registry name or of a file ``*.yaml``; ``url`` overrides its address.

    Raises:
        UserError: no such service, no key in the environment, or a wrong description.
    """
    if name in SERVICES:
        return SERVICES[name](url)
    if Path(name).suffix in (".yaml", ".yml"):
        return json_api.connect(Path(name), url)
    raise UserError(f"--service {name} is not known; choose from {', '.join(SERVICES)}, or describe it in a FILE.yaml")

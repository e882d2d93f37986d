"""Reads ``params.yaml``: a typo stops a run in its first second."""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from visor.core.errors import UserError
from visor.core.params import Params, ParamsBlock

BlockT = TypeVar("BlockT", bound=ParamsBlock)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check ``params.yaml`` with DVC's own YAML rules (``1e-3`` is a number).

    Raises:
        UserError: missing file, bad YAML, or a key that is unknown, absent, of a wrong type or out of range.
    """
    try:
        content = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the project's root") from None
    except YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    params = validate_block(Params, content, str(path))
    for name in ("calibration", "clean", "adapted"):
        if name in params.backdoors:
            raise UserError(f"{path}: backdoors.{name} has a name that other images go by; choose another")
    if "clean" not in params.training_sets:
        raise UserError(f"{path}: training_sets lacks clean, the control of every attack; add it")
    if "reconstruction" not in params.defences:
        raise UserError(f"{path}: defences lacks reconstruction, the reference of every other; add it")
    for where, names, known in _references(params):
        for name in names:
            lookup(dict.fromkeys(known), name, where)
    return params


def _references(params: Params) -> Iterator[tuple[str, Iterable[str], Iterable[str]]]:
    """Yield (param, the names it holds, the names it may hold) wherever one block names another."""
    budget, trained = params.poison_budget, set(params.training_sets) - {"clean"}
    yield "training_sets", params.training_sets, ["clean", *params.backdoors]
    yield "networks", params.networks, params.classifiers
    yield "inspected_network", [params.inspected_network], params.networks
    yield "validation_triggers", params.validation_triggers, params.backdoors
    yield "poison_budget.networks", budget.networks, params.classifiers
    yield "poison_budget.attacks", budget.attacks, params.backdoors
    yield "poison_budget.ratios.attack", [budget.ratios.attack], params.backdoors
    yield "adaptive_trigger.attack", [params.adaptive_trigger.attack], trained
    trainable = [name for name, detector in params.detectors.items() if detector.training]
    yield "trained_detectors", params.trained_detectors, trainable
    yield "detection_attack.detectors", params.detection_attack.detectors, params.detectors
    yield "detection_attack.transfer_detectors", params.detection_attack.transfer_detectors, params.detectors
    recognition = params.recognition_attack
    yield "recognition_attack.networks", recognition.networks, params.recognisers
    yield "recognition_attack.white_box", recognition.white_box, recognition.networks
    yield "recognition_attack.cropping_detectors", recognition.cropping_detectors, ["none", *params.detectors]
    for name, block in params.inspection:
        yield f"inspection.{name}.attacks", block.attacks, trained


Entry = TypeVar("Entry")


def lookup(registry: Mapping[str, Entry], name: str, where: str) -> Entry:
    """Return the entry of a registry that the param ``where`` names.

    Raises:
        UserError: no such entry; the message lists the names.
    """
    if name not in registry:
        raise UserError(f"params.yaml: {where} is {name!r}; choose from {', '.join(sorted(registry))}")
    return registry[name]


def validate_block(block: type[BlockT], content: Mapping[str, Any], where: str) -> BlockT:
    """Make a checked ``block`` from a mapping; ``where`` names it in the message.

    Raises:
        UserError: naming the first wrong key and, for an unknown one, the allowed names.
    """
    try:
        return block.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(block, error.errors()[0])}") from None


def _sentence(block: type[ParamsBlock], error: ErrorDetails) -> str:
    key = ".".join(map(str, error["loc"])) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key; allowed here: {', '.join(_fields(block, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{key} is missing; add it"
    return f"{key} is {error['input']!r}, but {error['msg'][0].lower()}{error['msg'][1:]}"


def _fields(block: type[ParamsBlock], location: tuple[int | str, ...]) -> list[str]:
    """Names that the block at ``location`` allows; names inside a dict of blocks are the user's own."""

    def step(kind: Any, key: int | str) -> Any:
        if isinstance(kind, type) and issubclass(kind, ParamsBlock):
            return kind.model_fields[str(key)].annotation
        return kind.__args__[-1]

    found = reduce(step, location, block)
    return list(found.model_fields)

"""Reading and checking ``params.yaml``, so that a typo stops a run in its first second."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from visor.core.errors import UserError
from visor.core.params import Params, ParamsBlock

BlockT = TypeVar("BlockT", bound=ParamsBlock)
Entry = TypeVar("Entry")

# Old dotted key (below its block's new name) → new dotted key; * is any one name.
RENAMED_KEYS = {
    "suspect": "inspected_network",
    "hiding": "detection_attack",
    "recognition": "recognition_attack",
    "adaptation": "adaptive_trigger",
    "backdoors.*.poison_ratio": "backdoors.*.train_blend_ratio",
    "backdoors.*.backdoor_ratio": "backdoors.*.test_blend_ratio",
    "classifiers.deepface.architecture.black": "classifiers.deepface.architecture.input_min",
    "classifiers.deepface.architecture.shrink": "classifiers.deepface.architecture.kernel_divisor",
    "inspection.sanitisation": "inspection.training_filtering",
    "detectors.*.objective": "detectors.*.loss",
    "detectors.*.options.side": "detectors.*.options.input_size",
    "detectors.mtcnn.options.min_face": "detectors.mtcnn.options.min_face_size",
    "detectors.mtcnn.options.overlap": "detectors.mtcnn.options.nms_iou",
    "detectors.mtcnn.options.gate": "detectors.mtcnn.options.stage_threshold",
    "detection_attack.shown_to": "detection_attack.transfer_detectors",
    "detection_attack.step": "detection_attack.relative_step",
    "recognisers.vgg16": "recognisers.vgg_face",
    "recognisers.*.options.side": "recognisers.*.options.input_size",
    "recognisers.*.noise": "recognisers.*.input_noise",
    "recognition_attack.trained": "recognition_attack.networks",
    "recognition_attack.surrogates": "recognition_attack.white_box",
    "recognition_attack.unseen": "recognition_attack.held_out_share",
    "recognition_attack.step": "recognition_attack.relative_step",
    "recognition_attack.in_front": "recognition_attack.cropping_detectors",
    "recognition_attack.top": "recognition_attack.top_k",
    "recognition_attack.shown": "recognition_attack.report_faces",
    "recognition_attack.methods.*.search": "recognition_attack.methods.*.algorithm",
    "recognition_attack.methods.*.samples": "recognition_attack.methods.*.eot_samples",
}


def read_yaml(path: Path, advice: str = "run from the project's root") -> dict[str, Any]:
    """Read the keys of a YAML file with DVC's own rules (``1e-3`` is a number); ``advice`` ends the error message.

    Raises:
        UserError: The file is missing, cannot be read, is not YAML or has no keys.
    """
    name = path.name if path.is_absolute() else path  # Reports quote the message and must not name local folders.
    try:
        content = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise UserError(f"{name} is missing; {advice}") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}); {advice}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} has no keys; {advice}")
    return content


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check ``params.yaml``.

    Raises:
        UserError: Missing file, bad YAML, or a key that is renamed, unknown, absent, of a wrong type or out of range.
    """
    content = read_yaml(path)
    _check_renamed(content, path)
    params = validate_block(Params, content, str(path))
    for name in {"calibration", "clean", "adapted"} & params.backdoors.keys():
        raise UserError(f"{path}: backdoors.{name}: this name is reserved; choose another")
    if "clean" not in params.training_sets:
        raise UserError(f"{path}: training_sets must contain clean, the control for every attack")
    if "reconstruction" not in params.defences:
        raise UserError(f"{path}: defences must contain reconstruction, the reference for every other defence")
    for where, names, allowed in _references(params):
        for name in names:
            lookup(dict.fromkeys(allowed), name, where)
    return params


def _check_renamed(content: Any, path: Path, prefix: str = "") -> None:
    for name, value in content.items() if isinstance(content, dict) else ():
        key = f"{prefix}{name}"
        for old, new in RENAMED_KEYS.items():
            if fnmatchcase(key, old):
                raise UserError(f"{path}: {key} was renamed to {prefix}{new.rpartition('.')[2]}")
        _check_renamed(value, path, f"{key}.")


def _references(params: Params) -> Iterator[tuple[str, Iterable[str], Iterable[str]]]:
    """Yield (key, its names, the allowed names) wherever one block names another."""
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


def lookup(registry: Mapping[str, Entry], name: str, where: str) -> Entry:
    """Return the entry ``name`` of a registry; ``where`` is the key of ``params.yaml`` that holds the name.

    Raises:
        UserError: There is no such entry; the message lists the names.
    """
    if name not in registry:
        raise UserError(f"params.yaml: {where} is {name!r}; choose from {', '.join(sorted(registry))}")
    return registry[name]


def validate_block(block: type[BlockT], content: Mapping[str, Any], where: str) -> BlockT:
    """Return a checked ``block`` made from a mapping; ``where`` begins the error message.

    Raises:
        UserError: A key is wrong; the message names the first one and, if it is unknown, the allowed names.
    """
    try:
        return block.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_describe(block, error.errors()[0])}") from None


def _describe(block: type[ParamsBlock], error: ErrorDetails) -> str:
    key = ".".join(map(str, error["loc"])) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key; allowed here: {', '.join(_field_names(block, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{key} is missing; add it"
    return f"{key} is {error['input']!r}, but {error['msg'][0].lower()}{error['msg'][1:]}"


def _field_names(block: Any, location: tuple[int | str, ...]) -> list[str]:
    """Return the names allowed in the block at ``location``; names in a dict of blocks are the user's choice."""
    for key in location:
        is_block = isinstance(block, type) and issubclass(block, ParamsBlock)
        block = block.model_fields[str(key)].annotation if is_block else block.__args__[-1]
    return list(block.model_fields)

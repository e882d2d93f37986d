"""Reading and checking ``params.yaml``, so that a typo stops a run in its first second."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from visor.core.errors import UserError, shorten
from visor.core.files import check_conflict_marks, check_no_device
from visor.core.params import Params, ParamsBlock

BlockT = TypeVar("BlockT", bound=ParamsBlock)
Entry = TypeVar("Entry")

MAX_YAML_BYTES = 1 << 20
MAX_YAML_LEVELS = 40  # of nesting
MAX_YAML_NODES = 50_000  # an alias counts as all that it stands for; each costs some 50 µs

# Old dotted key (below its block's new name) → new dotted key; * is any one name.
RENAMED_KEYS = {
    "suspect": "inspected_network",
    "hiding": "detection_attack",
    "recognition": "recognition_attack",
    "adaptation": "adaptive_attacks",
    "adaptive_trigger": "adaptive_attacks",
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


# Keys that are gone → why.
REMOVED_KEYS = {
    "detection_attack.precision": "gradients are float32",
    "defences.fusion": "it found what was pasted, not what a trigger does; see suite",
}

REQUIRED_DEFENCES = {
    "reconstruction": "the reference for every other defence",
    "suite": "whose false_positive_rate its parts have",
}


def read_yaml(path: Path, advice: str = "run from the project's root") -> dict[str, Any]:
    """Read the keys of a YAML file with DVC's own rules (``1e-3`` is a number); ``advice`` ends the error message.

    Raises:
        UserError: The file is missing, cannot be read, is not YAML, has no keys, a key that is not text, a tag or
            Git's conflict marks, or is too large, too deep or made of too many aliases.
    """
    name = path.name if path.is_absolute() else path  # Reports quote the message and must not name local folders.
    check_no_device(path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_YAML_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{name} is missing; {advice}") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}); {advice}") from None
    if len(text) > MAX_YAML_BYTES:
        raise UserError(f"{name} is larger than {MAX_YAML_BYTES >> 20} MiB; {advice}")
    check_conflict_marks(text, name)
    try:
        _check_shape(text, name)
        content = YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:  # ValueError: 2020-13-45, which looks like a date.
        raise UserError(f"{name} is not YAML: {_describe_syntax(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} has no keys; {advice}")
    _check_plain(content, name)
    return content


def _check_shape(text: bytes, name: Any) -> None:
    """Raise UserError if YAML is too deep, grows by its aliases or has tags, which make objects.

    Only the parser's events are read: unlike all that follows, that is done without recursion.
    """
    anchored: dict[str | None, tuple[int, int]] = {}  # nodes and levels of what an alias stands for
    open_nodes: list[tuple[str | None, int, int]] = [(None, 0, 0)]  # anchor, nodes and levels so far, innermost last
    for event in YAML(typ="safe").parse(text):
        nodes = levels = 0
        if getattr(event, "tag", None):
            raise UserError(f"{name} has the tag {shorten(event.tag)}; write plain values without tags")
        if isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, 1, 1))
        elif isinstance(event, CollectionEndEvent):
            anchor, nodes, levels = open_nodes.pop()
            anchored[anchor] = nodes, levels
        elif isinstance(event, AliasEvent):
            if event.anchor not in anchored:
                raise UserError(f"{name}: the alias *{shorten(event.anchor)} stands for nothing before it; correct it")
            nodes, levels = anchored[event.anchor]
        elif isinstance(event, ScalarEvent):
            nodes, levels = anchored[event.anchor] = 1, 0
        anchor, nodes_around, levels_around = open_nodes[-1]
        open_nodes[-1] = anchor, nodes_around + nodes, max(levels_around, levels + 1)
        if len(open_nodes) + levels > MAX_YAML_LEVELS:
            raise UserError(f"{name} is nested more than {MAX_YAML_LEVELS} levels deep; nest it less")
        if nodes_around + nodes > MAX_YAML_NODES:
            raise UserError(
                f"{name} has more than {MAX_YAML_NODES:,} values, those that aliases stand for included; write fewer"
            )


def _check_plain(content: Any, name: Any) -> None:
    """Raise UserError if a key is not text, or a value is a date: YAML reads 1, true and 2020-01-01 as such."""
    if isinstance(content, date):
        raise UserError(f"{name}: {content} is read as a date; put it in quotes")
    for key in content if isinstance(content, dict) else ():
        if not isinstance(key, str):
            raise UserError(f"{name}: the key {shorten(repr(key))} is not text; put it in quotes")
    for item in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        _check_plain(item, name)


def _describe_syntax(error: Exception) -> str:
    """Return what is wrong, and the line, without the excerpts of the file."""
    parts = [getattr(error, part, None) for part in ("context", "problem")]
    mark = getattr(error, "problem_mark", None)
    reason = shorten(" ".join(filter(None, parts)) or error, 160)
    return f"{reason} in line {mark.line + 1}" if mark else reason


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check ``params.yaml``.

    Raises:
        UserError: Missing file, bad YAML, or a key that is renamed, unknown, absent, of a wrong type or out of range.
    """
    content = read_yaml(path)
    _check_renamed(content, path)
    params = validate_block(Params, content, str(path))
    for name in {"calibration", "clean", "delivered"} & params.backdoors.keys():
        raise UserError(f"{path}: backdoors.{name}: this name is reserved; choose another")
    if "clean" not in params.training_sets:
        raise UserError(f"{path}: training_sets must contain clean, the control for every attack")
    for name, reason in REQUIRED_DEFENCES.items():
        if name not in params.defences:
            raise UserError(f"{path}: defences must contain {name}, {reason}; add it")
    for where, names, allowed in _references(params):
        for name in names:
            lookup(dict.fromkeys(allowed), name, where)
    return params


def _check_renamed(content: Any, path: Path, prefix: str = "") -> None:
    for name, value in content.items() if isinstance(content, dict) else ():
        key = f"{prefix}{name}"
        for old, new in RENAMED_KEYS.items():
            if fnmatchcase(key, old):
                new_key = f"{prefix}{new.rpartition('.')[2]}"
                raise UserError(f"{path}: {shorten(key, 120)} was renamed to {shorten(new_key, 120)}")
        if key in REMOVED_KEYS:
            raise UserError(f"{path}: {key} was removed ({REMOVED_KEYS[key]}); delete it")
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
    adaptive = params.adaptive_attacks
    yield "adaptive_attacks.training_sets", adaptive.training_sets, trained
    yield "adaptive_attacks.key_search.attacks", adaptive.key_search.attacks, trained
    yield "adaptive_attacks.adversarial_embedding.attacks", adaptive.adversarial_embedding.attacks, trained
    trainable = [name for name, detector in params.detectors.items() if detector.training]
    yield "trained_detectors", params.trained_detectors, trainable
    yield "detection_attack.detectors", params.detection_attack.detectors, params.detectors
    yield "detection_attack.transfer_detectors", params.detection_attack.transfer_detectors, params.detectors
    recognition = params.recognition_attack
    yield "recognition_attack.networks", recognition.networks, params.recognisers
    yield "recognition_attack.white_box", recognition.white_box, recognition.networks
    yield "recognition_attack.cropping_detectors", recognition.cropping_detectors, ["none", *params.detectors]
    filtering = params.inspection.training_filtering
    yield "inspection.training_filtering.retrain", [filtering.retrain] if filtering.retrain else [], filtering.attacks
    for name, block in params.inspection:
        yield f"inspection.{name}.attacks", block.attacks, trained


def lookup(registry: Mapping[str, Entry], name: str, where: str) -> Entry:
    """Return the entry ``name`` of a registry; ``where`` is the key of ``params.yaml`` that holds the name.

    Raises:
        UserError: There is no such entry; the message lists the names.
    """
    if name not in registry:
        choices = ", ".join(sorted(registry))
        raise UserError(f"params.yaml: {where} is {shorten(repr(name))}; choose from {choices}")
    return registry[name]


def validate_block(block: type[BlockT], content: Mapping[str, Any], where: str) -> BlockT:
    """Return a checked ``block`` made from a mapping; ``where`` begins the error message.

    Raises:
        UserError: A key is wrong; the message names the first one and, if it is unknown, the allowed names.
    """
    try:
        return block.model_validate(content)
    except ValidationError as error:
        wrong = error.errors()
        unknown = [each for each in wrong if each["type"] == "extra_forbidden"]  # Misspelt, it is a missing one, too.
        raise UserError(f"{where}: {_describe(block, (unknown or wrong)[0])}") from None


def _describe(block: type[ParamsBlock], error: ErrorDetails) -> str:
    key = shorten(".".join(map(str, error["loc"])) or "the file", 120)
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key; allowed here: {', '.join(_field_names(block, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{key} is missing; add it"
    if error["loc"][-1:] == ("[key]",):
        *around, _ = error["loc"][:-1]
        where, name = ".".join(map(str, around)), shorten(repr(error["input"]))
        return f"{where} has the name {name}; use letters a to z, digits, _ and (not first) -, at most 60"
    return f"{key} is {shorten(repr(error['input']))}, but {error['msg'][0].lower()}{error['msg'][1:]}"


def _field_names(block: Any, location: tuple[int | str, ...]) -> list[str]:
    """Return the names allowed in the block at ``location``; names in a dict of blocks are the user's choice."""
    for key in location:
        is_block = isinstance(block, type) and issubclass(block, ParamsBlock)
        block = block.model_fields[str(key)].annotation if is_block else block.__args__[-1]
        if isinstance(block, UnionType):  # a block, or nothing
            (block,) = (choice for choice in block.__args__ if choice is not NoneType)
    return list(block.model_fields)

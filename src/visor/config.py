"""``params.yaml`` as frozen, strictly checked values: a typo stops a run in its first second."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from visor.errors import UserError

Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class Block(BaseModel):
    """A block of ``params.yaml``: names and types are checked, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Compute(Block):
    """What trained weights depend on besides data, params and seed.

    ``threads`` is the size of TensorFlow's pools; ``deterministic`` asks for the same bytes on every run, and
    an interrupted training then starts again instead of going on from its last epoch.
    """

    threads: Positive
    deterministic: bool


class Faces(Block):
    """``download``: where faces come from and what is kept. Height and width in pixels."""

    source: str
    height: Annotated[int, Field(ge=16, le=512)]
    width: Annotated[int, Field(ge=16, le=512)]
    min_images: Positive
    max_broken: Count


class Split(Block):
    """Images a label in each set (the rest is the poison set), dealt by frame or by whole video.

    ``calibration`` is the share of the validation images that no defence is fitted on.
    """

    by: Literal["frame", "video"]
    train: Positive
    validation: Positive
    test: Positive
    calibration: Annotated[float, Field(gt=0, lt=1)]


class Backdoor(Block):
    """One injection attack: ``n`` poisons with the key at ``poison_ratio``, tested at ``backdoor_ratio``.

    ``key`` is the name of a picture in ``assets/keys``, or ``face`` for a face drawn from the poison set.
    """

    trigger: str
    key: str
    target: str
    n: Count
    poison_ratio: Ratio
    backdoor_ratio: Ratio


class Baselines(Block):
    """Classifiers without a network: how many train and test images they see, components in front of LDA."""

    max_images: Positive
    components: Positive


class Schedule(Block):
    """How long and how fast a network is trained."""

    epochs: Positive
    batch: Positive
    learning_rate: Rate


class Classifier(Schedule):
    """How a classifier is trained; ``architecture`` goes to its ``build`` function."""

    architecture: dict[str, int | float | str]


class VariationalAutoencoder(Schedule):
    """The autoencoder of the reference detector; ``beta`` weighs the divergence."""

    latent: Positive
    width: Positive
    beta: Annotated[float, Field(ge=0)]


class Defence(Block):
    """A threshold at mean + ``deviations``·std of clean scores, and the quantile for a wanted FPR beside it."""

    deviations: float
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)]


class Gate(Block):
    """Bounds of one metric; ``max_change`` is against the committed baseline."""

    min: float | None = None
    max: float | None = None
    max_change: Annotated[float | None, Field(ge=0)] = None


class Params(Block):
    """The whole of ``params.yaml``."""

    seed: Count
    compute: Compute
    faces: Faces
    sources: dict[str, dict[str, Any]]
    split: Split
    baselines: Baselines
    backdoors: dict[str, Backdoor]
    networks: list[str]
    training_sets: list[str]
    classifiers: dict[str, Classifier]
    vae: VariationalAutoencoder
    defences: dict[str, Defence]
    gates: dict[str, Gate]


Built = TypeVar("Built", bound=Block)


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
    params = build(Params, content, str(path))
    for name in ("calibration", "clean"):
        if name in params.backdoors:
            raise UserError(f"{path}: backdoors.{name} has a name that clean images go by; choose another")
    for name in params.training_sets:
        choice({"clean": None, **params.backdoors}, name, "training_sets")
    if "clean" not in params.training_sets:
        raise UserError(f"{path}: training_sets lacks clean, the control of every attack; add it")
    for name in params.networks:
        choice(params.classifiers, name, "networks")
    return params


Entry = TypeVar("Entry")


def choice(registry: Mapping[str, Entry], name: str, where: str) -> Entry:
    """Return the entry of a registry that the param ``where`` names.

    Raises:
        UserError: no such entry; the message lists the names.
    """
    if name not in registry:
        raise UserError(f"params.yaml: {where} is {name!r}; choose from {', '.join(sorted(registry))}")
    return registry[name]


def build(block: type[Built], content: Mapping[str, Any], where: str) -> Built:
    """Make a checked ``block`` from a mapping; ``where`` names it in the message.

    Raises:
        UserError: naming the first wrong key and, for an unknown one, the allowed names.
    """
    try:
        return block.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(block, error.errors()[0])}") from None


def _sentence(block: type[Block], error: ErrorDetails) -> str:
    key = ".".join(map(str, error["loc"])) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key; allowed here: {', '.join(_fields(block, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{key} is missing; add it"
    return f"{key} is {error['input']!r}, but {error['msg'][0].lower()}{error['msg'][1:]}"


def _fields(block: type[Block], location: tuple[int | str, ...]) -> list[str]:
    """Names that the block at ``location`` allows; names inside a dict of blocks are the user's own."""

    def step(kind: Any, key: int | str) -> Any:
        if isinstance(kind, type) and issubclass(kind, Block):
            return kind.model_fields[str(key)].annotation
        return kind.__args__[-1]

    found = reduce(step, location, block)
    return list(found.model_fields)

"""The whole of ``params.yaml``."""

from typing import Annotated, Any

from pydantic import Field

from visor.params.attacks import Adaptation, Backdoor, PoisonBudget
from visor.params.block import Block, Compute, Count
from visor.params.data import Baselines, Faces, Split
from visor.params.defences import Defence, Inspection
from visor.params.detection import Detector, Hiding, Scenes
from visor.params.networks import Classifier, VariationalAutoencoder, Verification
from visor.params.recognition import Recogniser, Recognition


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
    scenes: Scenes
    sources: dict[str, dict[str, Any]]
    split: Split
    baselines: Baselines
    backdoors: dict[str, Backdoor]
    networks: list[str]
    training_sets: list[str]
    classifiers: dict[str, Classifier]
    vae: VariationalAutoencoder
    suspect: str
    adaptation: Adaptation
    verification: Verification
    poison_budget: PoisonBudget
    inspection: Inspection
    validation_triggers: list[str]
    defences: dict[str, Defence]
    detectors: dict[str, Detector]
    trained_detectors: list[str]
    hiding: Hiding
    recognisers: dict[str, Recogniser]
    recognition: Recognition
    gates: dict[str, Gate]

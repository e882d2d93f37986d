"""Scenes with faces, detectors, and hiding from them."""

from typing import Annotated, Literal

from pydantic import Field

from visor.params.block import Block, Count, Positive, Rate, Ratio, Schedule


class Scenes(Block):
    """``download``: where scenes come from. Longer sides are shrunk to ``max_side`` pixels.

    Images in each set; a source with fewer is divided in these proportions.
    """

    source: str
    max_side: Annotated[int, Field(ge=64, le=4096)]
    train: Positive
    validation: Positive
    test: Positive
    max_broken: Count


class Training(Schedule):
    """How a detector is trained: ``layers`` all or those that predict, from ``weights`` if a file is named."""

    layers: Literal["all", "predictions"] = "all"
    weights: str | None = None


class Detector(Block):
    """One detector: a box is a face from score ``threshold`` on; ``options`` go to its module.

    ``objective`` is what an attack on it maximises (``visor.evasion.objectives``).
    """

    threshold: Ratio
    objective: Literal["boxes", "areas", "training_loss", "suppress"] | None = None
    options: Annotated[dict[str, int | float | str | None], Field(default_factory=dict)]
    training: Training | None = None


class Strength(Block):
    """A bound of the perturbation in [0, 1] (L∞) and a number of gradient steps."""

    eps: Ratio
    iterations: Positive


class Hiding(Block):
    """PGD on detectors: a step is ``step``·eps / iterations, ``momentum`` the decay of MI-FGSM (0: none).

    ``mask`` faces perturbs inside boxes enlarged by ``margin`` alone. Images that are ``done`` leave the batch when
    ``early_stop`` is set. All is measured on ``images`` test scenes at most, and for the last strength also after
    JPEG at each ``jpeg`` quality.
    """

    detectors: Annotated[list[str], Field(min_length=1)]
    strengths: Annotated[list[Strength], Field(min_length=1)]
    step: Rate
    momentum: Annotated[float, Field(ge=0)]
    random_start: bool
    early_stop: bool
    precision: Literal["float32", "bfloat16"]
    mask: Literal["none", "faces"]
    margin: Annotated[float, Field(ge=0)]
    images: Positive
    batch: Positive
    jpeg: list[Annotated[int, Field(ge=1, le=95)]]
    shown_to: list[str]

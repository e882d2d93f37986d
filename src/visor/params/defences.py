"""Thresholds of detectors, and how suspect networks are searched."""

from typing import Annotated

from pydantic import Field

from visor.params.block import Block, Positive, Rate, Ratio, Schedule


class Defence(Block):
    """A threshold at mean + ``deviations``·std of clean scores, and a conformal one for a wanted FPR beside it."""

    deviations: float
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)]


class Sanitisation(Block):
    """``attacks`` whose training sets are searched for poisons."""

    attacks: list[str]


class NeuralCleanse(Block):
    """Reversing triggers: steps of Adam on ``batch`` clean images, until the share ``success`` reaches the label.

    ``labels_at_once`` are optimised together: memory grows with their number times ``batch``.
    """

    attacks: list[str]
    steps: Positive
    batch: Positive
    learning_rate: Rate
    success: Ratio
    labels_at_once: Positive


class FinePruning(Schedule):
    """Which convolution loses which ``fractions`` of its channels, and how the rest is tuned on clean images.

    ``accuracy_drop`` is the loss of validation accuracy that the choice of a fraction allows.
    """

    attacks: Annotated[list[str], Field(min_length=1)]
    layer: str
    fractions: Annotated[list[Ratio], Field(min_length=1)]
    accuracy_drop: Ratio


class Saliency(Block):
    """How many triggered images of which attacks are explained."""

    attacks: Annotated[list[str], Field(min_length=1)]
    images: Positive


class Inspection(Block):
    """What attacked networks and their training sets are searched by."""

    sanitisation: Sanitisation
    neural_cleanse: NeuralCleanse
    fine_pruning: FinePruning
    saliency: Saliency

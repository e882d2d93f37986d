"""Recognisers of faces, and fooling them."""

from typing import Annotated, Literal

from pydantic import Field

from visor.params.block import Block, Count, Positive, Rate, Ratio, Schedule
from visor.params.detection import Strength


class Recogniser(Block):
    """One recogniser: ``options`` override the published ones of its module.

    ``weights``, a file or a URL with its ``sha256``, is what it starts from, and all that it knows without
    ``training``; ``labels`` is the file of the names that its published classes have. ``noise`` is the deviation of
    what is added to the pixels, in [0, 1], while it is trained.
    """

    options: Annotated[dict[str, int | float | str | list[int]], Field(default_factory=dict)]
    weights: str | None = None
    sha256: str | None = None
    labels: str | None = None
    training: Schedule | None = None
    noise: Ratio = 0.0


class Method(Block):
    """How an attack searches: ``momentum`` of MI-FGSM, and the mean of ``samples`` draws of random ``transforms``.

    ``transforms`` are names of ``visor.evasion.transforms`` with the strength of each.
    """

    search: Literal["pgd", "autopgd", "perturbation_vector"] = "pgd"
    momentum: Annotated[float, Field(ge=0)] = 0.0
    transforms: Annotated[dict[str, float], Field(default_factory=dict)]
    samples: Positive = 1


class Recognition(Block):
    """Attacks on recognisers, L∞. A share ``unseen`` of the people is never trained on.

    Half of their images set the threshold of each false-accept rate; others are attacked. ``target`` of an
    impersonation is the nearest or furthest other person, or one by name. A step is ``step``·eps / iterations (AutoPGD
    chooses its own). ``in_front`` are detectors that crop the face for the recogniser that is shown it; none: the crop
    that was attacked.
    """

    trained: Annotated[list[str], Field(min_length=1)]
    surrogates: Annotated[list[str], Field(min_length=1)]
    unseen: Annotated[float, Field(gt=0, lt=1)]
    false_accept_rates: Annotated[list[Ratio], Field(min_length=1)]
    pairs: Annotated[int, Field(ge=2)]
    images: Positive
    batch: Positive
    target: str
    methods: Annotated[dict[str, Method], Field(min_length=1)]
    strengths: Annotated[list[Strength], Field(min_length=1)]
    step: Rate
    random_start: bool
    jpeg: list[Annotated[int, Field(ge=1, le=95)]]
    in_front: list[str]
    margin: Annotated[float, Field(ge=0)]
    top: Annotated[int, Field(ge=1, le=20)]
    shown: Count

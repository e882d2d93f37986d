"""Backdoors, and attackers who do more than plant one."""

from typing import Annotated, Literal

from pydantic import Field

from visor.params.block import Block, Count, Positive, Rate, Ratio, Schedule


class Backdoor(Block):
    """One injection attack: ``n`` poisons with the key at ``poison_ratio``, tested at ``backdoor_ratio``.

    ``key`` is the name of a picture in ``assets/keys``, the path of any other one, or ``face`` for a face drawn
    from the poison set. With ``keys`` of these, test images carry them in turn and poisons the first.
    ``placement`` of a key on a face: where it is drawn, or where the face's landmarks are.
    """

    trigger: str
    key: str
    keys: Positive = 1
    placement: Literal["fixed", "landmarks"] = "fixed"
    target: str
    n: Count
    poison_ratio: Ratio
    backdoor_ratio: Ratio


class Adaptation(Block):
    """An attacker who knows the autoencoder bends the key of ``attack`` on ``images`` faces of the poison set.

    Loss: cross-entropy to the target + ``penalty`` · what the residual has above mean + std of clean faces.
    """

    attack: str
    images: Positive
    steps: Positive
    batch: Positive
    learning_rate: Rate
    penalty: Annotated[float, Field(ge=0)]


class Ratios(Block):
    """The heat map: networks trained on ``n`` poisons of ``attack`` at each ratio of ``train``, tested at ``test``."""

    attack: str
    n: Positive
    train: list[Ratio]
    test: list[Ratio]


class PoisonBudget(Schedule):
    """How many poisons a backdoor needs: a network is trained for each network, attack, n and seed.

    A seed stands for another start, order of images, key face and choice of poisons.
    """

    networks: Annotated[list[str], Field(min_length=1)]
    attacks: Annotated[list[str], Field(min_length=1)]
    n: Annotated[list[Count], Field(min_length=1)]
    seeds: Annotated[list[Count], Field(min_length=1)]
    ratios: Ratios

"""What blocks are made of: checked types, and how a network is trained."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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


class Schedule(Block):
    """How long and how fast a network is trained."""

    epochs: Positive
    batch: Positive
    learning_rate: Rate

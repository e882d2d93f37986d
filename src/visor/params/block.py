"""What blocks are made of: checked types, and how a network is trained."""

from typing import Annotated, Literal

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

    ``threads`` is the size of TensorFlow's pools, shared by networks that are trained side by side; ``deterministic``
    asks for the same bytes on every run: an interrupted training then starts again instead of going on.
    """

    threads: Positive
    deterministic: bool


class Schedule(Block):
    """How long and how fast a network is trained.

    The learning rate falls to zero along a cosine, or is multiplied by ``decay`` after each epoch. SGD has a momentum
    of 0.9.
    """

    epochs: Positive
    batch: Positive
    learning_rate: Rate
    optimizer: Literal["adam", "sgd"] = "adam"
    decay: Ratio | None = None

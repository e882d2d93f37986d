"""Faces, who is in which set, and what is measured on them without a network."""

from typing import Annotated, Literal

from pydantic import Field

from visor.params.block import Block, Count, Positive


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


class Baselines(Block):
    """Classifiers without a network: how many train and test images they see, components in front of LDA."""

    max_images: Positive
    components: Positive

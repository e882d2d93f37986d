"""How networks are built, trained and compared."""

from typing import Annotated

from pydantic import Field

from visor.params.block import Block, Positive, Schedule


class Classifier(Schedule):
    """How a classifier is trained; ``architecture`` goes to its ``build`` function.

    ``weights`` is a file of published weights (HDF5 of Keras 2) to start from; without one it starts from scratch.
    """

    weights: str | None = None
    architecture: dict[str, int | float | str]


class VariationalAutoencoder(Schedule):
    """The autoencoder of the reference detector; ``beta`` weighs the divergence.

    It is fitted once on all clean images it may see, and once without each of ``folds`` parts of them.
    """

    latent: Positive
    width: Positive
    beta: Annotated[float, Field(ge=0)]
    folds: Annotated[int, Field(ge=2, le=20)]


class Verification(Block):
    """Pairs of faces, compared by the features of the suspect network: how many, at most, half of them of one person.

    Joint Bayesian is fitted on ``max_images`` train images at most, on ``components`` principal ones of their
    features, by ``iterations`` of expectation maximisation.
    """

    pairs: Annotated[int, Field(ge=2)]
    max_images: Positive
    components: Positive
    iterations: Positive

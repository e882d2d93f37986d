"""``params.yaml`` as frozen, strictly checked values: one class a block, one file a subject."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

UnitFloat = Annotated[float, Field(ge=0, le=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]


class ParamsBlock(BaseModel):
    """A block of ``params.yaml``: names and types are checked, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ComputeParams(ParamsBlock):
    """What trained weights depend on besides data, params and seed.

    ``threads`` is the size of TensorFlow's pools, shared by networks that are trained side by side; ``deterministic``
    asks for the same bytes on every run: an interrupted training then starts again instead of going on.
    """

    threads: PositiveInt
    deterministic: bool


class TrainingSchedule(ParamsBlock):
    """How long and how fast a network is trained.

    The learning rate falls to zero along a cosine, or is multiplied by ``decay`` after each epoch. SGD has a momentum
    of 0.9.
    """

    epochs: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    optimizer: Literal["adam", "sgd"] = "adam"
    decay: UnitFloat | None = None


class BackdoorParams(ParamsBlock):
    """One injection attack: ``n`` poisons with the key at ``train_blend_ratio``, tested at ``test_blend_ratio``.

    ``key`` is the name of a picture in ``assets/keys``, the path of any other one, or ``face`` for a face drawn
    from the poison set. With ``keys`` of these, test images carry them in turn and poisons the first.
    ``placement`` of a key on a face: where it is drawn, or where the face's landmarks are.
    """

    trigger: str
    key: str
    keys: PositiveInt = 1
    placement: Literal["fixed", "landmarks"] = "fixed"
    target: str
    n: NonNegativeInt
    train_blend_ratio: UnitFloat
    test_blend_ratio: UnitFloat


class AdaptiveTriggerParams(ParamsBlock):
    """An attacker who knows the autoencoder bends the key of ``attack`` on ``images`` faces of the poison set.

    Loss: cross-entropy to the target + ``penalty`` · what the residual has above mean + std of clean faces.
    """

    attack: str
    images: PositiveInt
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    penalty: Annotated[float, Field(ge=0)]


class BlendRatioParams(ParamsBlock):
    """The heat map: networks trained on ``n`` poisons of ``attack`` at each ratio of ``train``, tested at ``test``."""

    attack: str
    n: PositiveInt
    train: list[UnitFloat]
    test: list[UnitFloat]


class PoisonBudgetParams(TrainingSchedule):
    """How many poisons a backdoor needs: a network is trained for each network, attack, n and seed.

    A seed stands for another start, order of images, key face and choice of poisons.
    """

    networks: Annotated[list[str], Field(min_length=1)]
    attacks: Annotated[list[str], Field(min_length=1)]
    n: Annotated[list[NonNegativeInt], Field(min_length=1)]
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    ratios: BlendRatioParams


class FaceParams(ParamsBlock):
    """``download``: where faces come from and what is kept. Height and width in pixels."""

    source: str
    height: Annotated[int, Field(ge=16, le=512)]
    width: Annotated[int, Field(ge=16, le=512)]
    min_images: PositiveInt
    max_broken: NonNegativeInt


class SplitParams(ParamsBlock):
    """Images a label in each set (the rest is the poison set), dealt by frame or by whole video.

    ``calibration`` is the share of the validation images that no defence is fitted on.
    """

    by: Literal["frame", "video"]
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt
    calibration: Annotated[float, Field(gt=0, lt=1)]


class BaselineParams(ParamsBlock):
    """Classifiers without a network: how many train and test images they see, components in front of LDA."""

    max_images: PositiveInt
    components: PositiveInt


class DefenceParams(ParamsBlock):
    """A threshold at mean + ``deviations``·std of clean scores, and a conformal one for a wanted FPR beside it."""

    deviations: float
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)]


class TrainingFilterParams(ParamsBlock):
    """``attacks`` whose training sets are searched for poisons."""

    attacks: list[str]


class NeuralCleanseParams(ParamsBlock):
    """Reversing triggers: steps of Adam on ``batch`` clean images, until the share ``success`` reaches the label.

    ``labels_at_once`` are optimised together: memory grows with their number times ``batch``.
    """

    attacks: list[str]
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    success: UnitFloat
    labels_at_once: PositiveInt


class FinePruningParams(TrainingSchedule):
    """Which convolution loses which ``fractions`` of its channels, and how the rest is tuned on clean images.

    ``accuracy_drop`` is the loss of validation accuracy that the choice of a fraction allows.
    """

    attacks: Annotated[list[str], Field(min_length=1)]
    layer: str
    fractions: Annotated[list[UnitFloat], Field(min_length=1)]
    accuracy_drop: UnitFloat


class SaliencyParams(ParamsBlock):
    """How many triggered images of which attacks are explained."""

    attacks: Annotated[list[str], Field(min_length=1)]
    images: PositiveInt


class InspectionParams(ParamsBlock):
    """What attacked networks and their training sets are searched by."""

    training_filtering: TrainingFilterParams
    neural_cleanse: NeuralCleanseParams
    fine_pruning: FinePruningParams
    saliency: SaliencyParams


class SceneParams(ParamsBlock):
    """``download``: where scenes come from. Longer sides are shrunk to ``max_side`` pixels.

    Images in each set; a source with fewer is divided in these proportions.
    """

    source: str
    max_side: Annotated[int, Field(ge=64, le=4096)]
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt
    max_broken: NonNegativeInt


class DetectorTraining(TrainingSchedule):
    """How a detector is trained: ``layers`` all or those that predict, from ``weights`` if a file is named."""

    layers: Literal["all", "predictions"] = "all"
    weights: str | None = None


class DetectorParams(ParamsBlock):
    """One detector: a box is a face from score ``threshold`` on; ``options`` go to its module.

    ``objective`` is what an attack on it maximises (``visor.attacks.evasion.losses.detectors``).
    """

    threshold: UnitFloat
    loss: Literal["suppress", "near_faces", "near_faces_by_area", "training_loss"] | None = None
    options: Annotated[dict[str, int | float | str | None], Field(default_factory=dict)]
    training: DetectorTraining | None = None


class AttackStrength(ParamsBlock):
    """A bound of the perturbation in [0, 1] (L∞) and a number of gradient steps."""

    eps: UnitFloat
    iterations: PositiveInt


class DetectionAttackParams(ParamsBlock):
    """PGD on detectors: a step is ``step``·eps / iterations, ``momentum`` the decay of MI-FGSM (0: none).

    ``mask`` faces perturbs inside boxes enlarged by ``margin`` alone. Images that are ``done`` leave the batch when
    ``early_stop`` is set. All is measured on ``images`` test scenes at most, and for the last strength also after
    JPEG at each ``jpeg`` quality.
    """

    detectors: Annotated[list[str], Field(min_length=1)]
    strengths: Annotated[list[AttackStrength], Field(min_length=1)]
    relative_step: PositiveFloat
    momentum: Annotated[float, Field(ge=0)]
    random_start: bool
    early_stop: bool
    precision: Literal["float32", "bfloat16"]
    mask: Literal["none", "faces"]
    margin: Annotated[float, Field(ge=0)]
    images: PositiveInt
    batch: PositiveInt
    jpeg: list[Annotated[int, Field(ge=1, le=95)]]
    transfer_detectors: list[str]


class ClassifierParams(TrainingSchedule):
    """How a classifier is trained; ``architecture`` goes to its ``build`` function.

    ``weights`` is a file of published weights (HDF5 of Keras 2) to start from; without one it starts from scratch.
    """

    weights: str | None = None
    architecture: dict[str, int | float | str]


class AutoencoderParams(TrainingSchedule):
    """The autoencoder of the reference detector; ``beta`` weighs the divergence.

    It is fitted once on all clean images it may see, and once without each of ``folds`` parts of them.
    """

    latent: PositiveInt
    width: PositiveInt
    beta: Annotated[float, Field(ge=0)]
    folds: Annotated[int, Field(ge=2, le=20)]


class VerificationParams(ParamsBlock):
    """Pairs of faces, compared by the features of the suspect network: how many, at most, half of them of one person.

    Joint Bayesian is fitted on ``max_images`` train images at most, on ``components`` principal ones of their
    features, by ``iterations`` of expectation maximisation.
    """

    pairs: Annotated[int, Field(ge=2)]
    max_images: PositiveInt
    components: PositiveInt
    iterations: PositiveInt


class RecogniserParams(ParamsBlock):
    """One recogniser: ``options`` override the published ones of its module.

    ``weights``, a file or a URL with its ``sha256``, is what it starts from, and all that it knows without
    ``training``; ``labels`` is the file of the names that its published classes have. ``noise`` is the deviation of
    what is added to the pixels, in [0, 1], while it is trained.
    """

    options: Annotated[dict[str, int | float | str | list[int]], Field(default_factory=dict)]
    weights: str | None = None
    sha256: str | None = None
    labels: str | None = None
    training: TrainingSchedule | None = None
    input_noise: UnitFloat = 0.0


class AttackMethod(ParamsBlock):
    """How an attack searches: ``momentum`` of MI-FGSM, and the mean of ``samples`` draws of random ``transforms``.

    ``transforms`` are names of ``visor.attacks.evasion.transforms`` with the strength of each.
    """

    algorithm: Literal["pgd", "autopgd", "adam"] = "pgd"
    momentum: Annotated[float, Field(ge=0)] = 0.0
    transforms: Annotated[dict[str, float], Field(default_factory=dict)]
    eot_samples: PositiveInt = 1


class RecognitionAttackParams(ParamsBlock):
    """Attacks on recognisers, L∞. A share ``unseen`` of the people is never trained on.

    Half of their images set the threshold of each false-accept rate; others are attacked. ``target`` of an
    impersonation is the nearest or furthest other person, or one by name. A step is ``step``·eps / iterations (AutoPGD
    chooses its own). ``in_front`` are detectors that crop the face for the recogniser that is shown it; none: the crop
    that was attacked.
    """

    networks: Annotated[list[str], Field(min_length=1)]
    white_box: Annotated[list[str], Field(min_length=1)]
    held_out_share: Annotated[float, Field(gt=0, lt=1)]
    false_accept_rates: Annotated[list[UnitFloat], Field(min_length=1)]
    pairs: Annotated[int, Field(ge=2)]
    images: PositiveInt
    batch: PositiveInt
    target: str
    methods: Annotated[dict[str, AttackMethod], Field(min_length=1)]
    strengths: Annotated[list[AttackStrength], Field(min_length=1)]
    relative_step: PositiveFloat
    random_start: bool
    jpeg: list[Annotated[int, Field(ge=1, le=95)]]
    cropping_detectors: list[str]
    margin: Annotated[float, Field(ge=0)]
    top_k: Annotated[int, Field(ge=1, le=20)]
    report_faces: NonNegativeInt


class GateParams(ParamsBlock):
    """Bounds of one metric; ``max_change`` is against the committed baseline."""

    min: float | None = None
    max: float | None = None
    max_change: Annotated[float | None, Field(ge=0)] = None


class Params(ParamsBlock):
    """The whole of ``params.yaml``."""

    seed: NonNegativeInt
    compute: ComputeParams
    faces: FaceParams
    scenes: SceneParams
    sources: dict[str, dict[str, Any]]
    split: SplitParams
    baselines: BaselineParams
    backdoors: dict[str, BackdoorParams]
    networks: list[str]
    training_sets: list[str]
    classifiers: dict[str, ClassifierParams]
    vae: AutoencoderParams
    inspected_network: str
    adaptive_trigger: AdaptiveTriggerParams
    verification: VerificationParams
    poison_budget: PoisonBudgetParams
    inspection: InspectionParams
    validation_triggers: list[str]
    defences: dict[str, DefenceParams]
    detectors: dict[str, DetectorParams]
    trained_detectors: list[str]
    detection_attack: DetectionAttackParams
    recognisers: dict[str, RecogniserParams]
    recognition_attack: RecognitionAttackParams
    gates: dict[str, GateParams]


__all__ = [
    "AdaptiveTriggerParams",
    "AttackMethod",
    "AttackStrength",
    "AutoencoderParams",
    "BackdoorParams",
    "BaselineParams",
    "BlendRatioParams",
    "ClassifierParams",
    "ComputeParams",
    "DefenceParams",
    "DetectionAttackParams",
    "DetectorParams",
    "DetectorTraining",
    "FaceParams",
    "FinePruningParams",
    "GateParams",
    "InspectionParams",
    "NeuralCleanseParams",
    "Params",
    "ParamsBlock",
    "PoisonBudgetParams",
    "RecogniserParams",
    "RecognitionAttackParams",
    "SaliencyParams",
    "SceneParams",
    "SplitParams",
    "TrainingFilterParams",
    "TrainingSchedule",
    "VerificationParams",
]

"""``params.yaml`` as frozen, strictly checked values: one class for each block."""

import unicodedata
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

UnitFloat = Annotated[float, Field(ge=0, le=1)]
OpenUnitFloat = Annotated[float, Field(gt=0, lt=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
PairCount = Annotated[int, Field(ge=2)]
Levels = Annotated[int, Field(ge=0, le=255)]
ImageSide = Annotated[int, Field(ge=16, le=512)]
Names = Annotated[list[str], Field(min_length=1)]
Point = Annotated[list[UnitFloat], Field(min_length=2, max_length=2)]  # x and y, as shares of an image
# What a user names becomes a part of file names and of commands.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=60)]

# Names of labels are compared as the sources of faces keep them: é is one character, not e and an accent.
Label = Annotated[str, AfterValidator(partial(unicodedata.normalize, "NFC"))]


class ParamsBlock(BaseModel):
    """A block of ``params.yaml``: names and types are checked, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ComputeParams(ParamsBlock):
    """What trained weights depend on besides data, params and seed.

    Attributes:
        threads: Size of TensorFlow's thread pools, shared by networks that are trained at the same time.
        deterministic: Same bytes on every run; an interrupted training then starts again instead of resuming.
    """

    threads: PositiveInt
    deterministic: bool


class TrainingParams(ParamsBlock):
    """Training schedule.

    Attributes:
        epochs, batch: Passes over the training images, and images per step.
        learning_rate: Initial rate; it falls to zero along a cosine unless ``decay`` is set.
        optimizer: Adam, or SGD with momentum 0.9.
        clip_norm: Longer gradients, over all weights, are scaled to this length; default: never. Large first losses
            would fill Adam's mean square, which then keeps steps small for a thousand steps.
        decay: Factor applied to the learning rate after each epoch, instead of the cosine.
    """

    epochs: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    optimizer: Literal["adam", "sgd"] = "adam"
    clip_norm: PositiveFloat | None = None
    decay: UnitFloat | None = None


class FaceParams(ParamsBlock):
    """Faces to download.

    Attributes:
        source: Name of a source of faces.
        height, width: Size of a face in pixels.
        min_images: Labels with fewer images are dropped.
        max_broken: Unreadable images are skipped up to this number.
    """

    source: str
    height: ImageSide
    width: ImageSide
    min_images: PositiveInt
    max_broken: NonNegativeInt


class SceneParams(ParamsBlock):
    """Scenes to download.

    Attributes:
        source: Name of a source of scenes.
        max_side: Longer sides are shrunk to this number of pixels.
        train, validation, test: Scenes in each set; a source with fewer is divided in these proportions. Where no
            detector is trained, train and validation may be 0.
        max_broken: Unreadable images are skipped up to this number.
    """

    source: str
    max_side: Annotated[int, Field(ge=64, le=4096)]
    train: NonNegativeInt
    validation: NonNegativeInt
    test: PositiveInt
    max_broken: NonNegativeInt


class SplitParams(ParamsBlock):
    """Division of the faces; the images left over are the poison set.

    Attributes:
        by: Divide single frames, or whole videos.
        train, validation, test: Images of each label in each set.
        calibration: Share of the validation images that no defence is fitted on.
    """

    by: Literal["frame", "video"]
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt
    calibration: OpenUnitFloat


class BaselineParams(ParamsBlock):
    """1-NN and LDA on at most ``max_images`` train and test images; LDA on ``components`` principal components."""

    max_images: PositiveInt
    components: PositiveInt


class BackdoorParams(ParamsBlock):
    """One injection attack (Chen et al. 2017, arXiv 1712.05526).

    Attributes:
        trigger: Name of a function that puts a key on images.
        key: Name of a pattern in ``assets/keys``, path of an image, or ``face`` for a face of the poison set.
        keys: Number of faces used as keys: poisons and test images carry them in turn.
        placement: Put the key where it is drawn, or on the landmarks of the face.
        target: Label that triggered images should be classified as.
        n: Number of poisons added to the training set.
        cover: Number of further images with the key that keep their true label (Qi et al. 2023).
        test_trigger: Function that puts the key on test images; default: ``trigger``.
        train_blend_ratio, test_blend_ratio: Opacity of the key on poisons and on test images.
    """

    trigger: str
    key: str
    keys: PositiveInt = 1
    placement: Literal["fixed", "landmarks"] = "fixed"
    target: Label
    n: NonNegativeInt
    cover: NonNegativeInt = 0
    test_trigger: str | None = None
    train_blend_ratio: UnitFloat
    test_blend_ratio: UnitFloat

    @property
    def trigger_at_test(self) -> str:
        """Name of the function that puts the key on test images."""
        return self.test_trigger or self.trigger


class ClassifierParams(TrainingParams):
    """Training of a classifier.

    Attributes:
        weights: File of published weights (HDF5 of Keras 2) to start from; default: random weights.
        architecture: Arguments of the classifier's ``build`` function.
    """

    weights: str | None = None
    architecture: dict[str, int | float | str]


class AutoencoderParams(TrainingParams):
    """Variational autoencoder: length of a code, filters of the first convolution, weight of the divergence."""

    latent: PositiveInt
    width: PositiveInt
    beta: NonNegativeFloat


class CrossFittedAutoencoderParams(AutoencoderParams):
    """Autoencoder of the reference defence, fitted on all its images and once without each of ``folds`` parts."""

    folds: Annotated[int, Field(ge=2, le=20)]


class VerificationParams(ParamsBlock):
    """Verification by the features of the inspected network, compared directly and by joint Bayesian.

    Attributes:
        pairs: Maximum number of pairs, half of them of one person.
        max_images: Maximum number of train images that joint Bayesian is fitted on.
        components: Principal components of the features.
        iterations: Iterations of expectation maximisation.
    """

    pairs: PairCount
    max_images: PositiveInt
    components: PositiveInt
    iterations: PositiveInt


class BlendRatioParams(ParamsBlock):
    """Networks trained on ``n`` poisons of ``attack`` at each ratio of ``train``, tested at each of ``test``."""

    attack: str
    n: PositiveInt
    train: list[UnitFloat]
    test: list[UnitFloat]


class PoisonBudgetParams(TrainingParams):
    """Attack success by number of poisons: one network for each network, attack, n and seed.

    Attributes:
        networks, attacks: Names of classifiers and of backdoors.
        n: Numbers of poisons.
        seeds: Each is another start, order of images, key face and choice of poisons.
        ratios: The same by blend ratio.
    """

    networks: Names
    attacks: Names
    n: Annotated[list[NonNegativeInt], Field(min_length=1)]
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    ratios: BlendRatioParams


class TrainingFilterParams(ParamsBlock):
    """Search of the training sets ``attacks`` for poisons.

    Attributes:
        attacks: Training sets.
        retrain: One of them, on which the network is trained anew without what ``feature_mahalanobis`` flags; null:
            none.
    """

    attacks: list[str]
    retrain: str | None


class NeuralCleanseParams(ParamsBlock):
    """Trigger reversal (Wang et al. 2019).

    Attributes:
        attacks: Networks, by training set.
        steps, batch, learning_rate: Steps of Adam, clean images per step and its learning rate.
        success: Share of images that has to reach the label.
        labels_at_once: Labels optimised together; memory grows with their number times ``batch``.
    """

    attacks: list[str]
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    success: UnitFloat
    labels_at_once: PositiveInt


class FinePruningParams(TrainingParams):
    """Fine-pruning (Liu et al. 2018): pruning, then fine-tuning on clean images by this schedule.

    Attributes:
        attacks: Networks, by training set.
        layer: Convolution that loses channels.
        fractions: Shares of its channels to remove.
        accuracy_drop: Maximum loss of validation accuracy; selects the fraction.
    """

    attacks: Names
    layer: str
    fractions: Annotated[list[UnitFloat], Field(min_length=1)]
    accuracy_drop: UnitFloat


class SaliencyParams(ParamsBlock):
    """Saliency maps of ``images`` triggered images for the networks trained on ``attacks``."""

    attacks: Names
    images: PositiveInt


class InspectionParams(ParamsBlock):
    """Inspection of attacked networks and their training sets, one block for each method."""

    training_filtering: TrainingFilterParams
    neural_cleanse: NeuralCleanseParams
    fine_pruning: FinePruningParams
    saliency: SaliencyParams


KnownDefence = Literal["feature_mahalanobis", "knn", "suite"]  # names in visor.defences.differentiable.DEFENCE_PARTS


class KeySearchParams(ParamsBlock):
    """Attacker who optimises colours and opacity of a key against defences.

    Attributes:
        attacks: Backdoors whose keys are optimised.
        against: Defences; each is an attacker of its own.
        images: Number of faces of the poison set that the attacker has.
        steps, batch, learning_rate: Steps of Adam, images per step and its learning rate.
        penalty: Weight of the defences' scores above the attacker's estimate of their thresholds, beside the
            cross-entropy to the target.
        deviations: The estimate is mean + ``deviations`` · std of clean faces.
    """

    attacks: Names
    against: Annotated[list[KnownDefence], Field(min_length=1)]
    images: PositiveInt
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    penalty: NonNegativeFloat
    deviations: float


class AdversarialEmbeddingParams(TrainingParams):
    """Attacker who trains the network (Tan and Shokri 2020, arXiv 1905.13409), further by this schedule.

    Attributes:
        attacks: Backdoors, each with its network to begin with.
        against: Defences; each is an attacker of its own.
        poison_repeats: How often an epoch contains each poison.
        penalty: Weight of the defences' scores of poisons, beside the cross-entropy.
        margin: Only scores above mean − ``margin`` · std of the target's clean faces are penalised.
    """

    attacks: Names
    against: Annotated[list[KnownDefence], Field(min_length=1)]
    poison_repeats: PositiveInt
    penalty: NonNegativeFloat
    margin: float


class AdaptiveAttackParams(ParamsBlock):
    """Attackers who know the defences of the inspected network.

    Attributes:
        training_sets: Attacks by poisons alone, among ``training_sets``; only the inspected network is trained on them.
        key_search: Attackers who change the key.
        adversarial_embedding: Attackers who train the network.
    """

    training_sets: list[str]
    key_search: KeySearchParams
    adversarial_embedding: AdversarialEmbeddingParams


class SecondOpinionParams(ParamsBlock):
    """Recogniser that the filters ``second_opinion`` and ``suite`` ask beside the inspected network.

    Attributes:
        network: A published recogniser, after ``visor networks fetch``; default: none, the filter is left out.
        distance: How its embeddings are compared: by cosine for photographs, by Mahalanobis distance for drawn faces.
        eyes: Where the eyes of aligned faces are, x and y of the left one in the picture and of the right one, as
            shares of width and height; default: faces are not aligned, and the recogniser gets whole images.
    """

    network: Literal["dlib_resnet"] | None
    distance: Literal["cosine", "mahalanobis"]
    eyes: Annotated[list[Point], Field(min_length=2, max_length=2)] | None


class DefenceParams(ParamsBlock):
    """Thresholds: mean + ``deviations`` · std of clean scores, and a conformal one for ``false_positive_rate``.

    The conformal threshold of ``suite`` is that of each of its parts.
    """

    deviations: float
    false_positive_rate: OpenUnitFloat


DetectorLoss = Literal["suppress", "near_faces", "near_faces_by_area", "training_loss"]


class DetectorTrainingParams(TrainingParams):
    """Training of ``layers``, all or those that predict, from the file ``weights`` (default: random weights)."""

    layers: Literal["all", "predictions"] = "all"
    weights: str | None = None


class DetectorParams(ParamsBlock):
    """One detector.

    Attributes:
        threshold: Score from which a box counts as a face.
        loss: What an attack maximises, a name in ``visor.attacks.evasion.losses.detectors``; default: no attack.
        options: Options of the detector's module.
        training: Training schedule; default: not trained here.
    """

    threshold: UnitFloat
    loss: DetectorLoss | None = None
    options: Annotated[dict[str, int | float | str | None], Field(default_factory=dict)]
    training: DetectorTrainingParams | None = None


class AttackStrengthParams(ParamsBlock):
    """L∞ bound ``eps`` of the perturbation in levels of 255, and number of gradient steps."""

    eps: Levels
    iterations: PositiveInt


class GradientAttackParams(ParamsBlock):
    """What attacks on detectors and on recognisers have in common.

    Attributes:
        strengths: Bounds and steps; detectors are evaluated after JPEG for the last one only.
        relative_step: Step size as a multiple of eps / iterations; AutoPGD chooses its own.
        random_start: Start from random noise within the bound.
        images, batch: Maximum number of attacked test images, and images per step.
        jpeg: JPEG qualities to evaluate after the attack.
        scales: Shares of the sides, below 1, to evaluate after the attack: images that are saved smaller.
    """

    strengths: Annotated[list[AttackStrengthParams], Field(min_length=1)]
    relative_step: PositiveFloat
    random_start: bool
    images: PositiveInt
    batch: PositiveInt
    jpeg: list[Annotated[int, Field(ge=1, le=95)]]
    scales: Annotated[list[OpenUnitFloat], Field(default_factory=list)]


class DetectionAttackParams(GradientAttackParams):
    """PGD on detectors.

    Attributes:
        detectors, transfer_detectors: Attacked detectors, and those evaluated on the attacked scenes.
        momentum: Decay factor of MI-FGSM; 0: none.
        early_stop: Images that reached the goal leave the batch.
        mask: Perturb the whole image, or only face boxes.
        margin: Share of each side of a face box that is added at both of its ends.
        objectives: Losses that are compared with the detector's own ``loss`` at the last strength.
    """

    detectors: Names
    momentum: NonNegativeFloat
    early_stop: bool
    mask: Literal["none", "faces"]
    margin: NonNegativeFloat
    objectives: list[DetectorLoss]
    transfer_detectors: list[str]


class RecogniserParams(ParamsBlock):
    """One recogniser.

    Attributes:
        options: Options that differ from the published ones of the recogniser's module.
        weights: File or URL of weights to start from, and the final weights if ``training`` is absent.
        sha256: Checksum of a URL.
        labels: File with the names of the published classes.
        training: Training schedule; default: not trained here.
        input_noise: Standard deviation of noise on the pixels, in [0, 1], during training.
    """

    options: Annotated[dict[str, int | float | str | list[int]], Field(default_factory=dict)]
    weights: str | None = None
    sha256: str | None = None
    labels: str | None = None
    training: TrainingParams | None = None
    input_noise: UnitFloat = 0.0


class AttackMethodParams(ParamsBlock):
    """Search of an attack on recognisers.

    Attributes:
        algorithm: Name of the optimiser.
        momentum: Decay factor of MI-FGSM; 0: none.
        transforms: Names in ``visor.attacks.evasion.transforms`` with their strengths, drawn at random in each step.
        eot_samples: Draws of the transforms that a gradient is the mean of (expectation over transformation).
    """

    algorithm: Literal["pgd", "autopgd", "adam"] = "pgd"
    momentum: NonNegativeFloat = 0.0
    transforms: Annotated[dict[str, float], Field(default_factory=dict)]
    eot_samples: PositiveInt = 1


class MethodsAttackParams(GradientAttackParams):
    """Attacks by several methods.

    Attributes:
        methods: Attack methods by name.
        report_faces: Faces in tables and contact sheets.
    """

    methods: Annotated[dict[Name, AttackMethodParams], Field(min_length=1)]
    report_faces: NonNegativeInt


class RecognitionAttackParams(MethodsAttackParams):
    """Attacks on the embeddings of recognisers.

    Attributes:
        networks, white_box: Evaluated recognisers, and those of them that give gradients.
        held_out_share: Share of people held out from training; used for verification and attacks.
        false_accept_rates: Rates that thresholds are set for, on a third of the videos of these people.
        pairs: Maximum number of pairs.
        targets: Whom to impersonate, each by itself: the nearest and the furthest other person, or a name.
        cropping_detectors: Detectors that crop the face before recognition; ``none``: the crop that was attacked.
        margin: Share of each side of a detected box that is added at both of its ends.
        photo_side: None: recognisers see the faces as they are stored. Else the photographs that these were cut from,
            letterboxed to so many pixels, are attacked; recognisers see the face that MTCNN finds there, aligned as
            each was trained, or with ``margin``, and a detector in front finds it instead of MTCNN.
        cropping_jpeg: JPEG quality that images are saved with before a detector in front sees them; None: not saved.
    """

    networks: Names
    white_box: Names
    held_out_share: OpenUnitFloat
    false_accept_rates: Annotated[list[UnitFloat], Field(min_length=1)]
    pairs: PairCount
    targets: Annotated[list[Label], Field(min_length=1)]
    cropping_detectors: list[str]
    margin: NonNegativeFloat
    photo_side: ImageSide | None = None
    cropping_jpeg: Annotated[int, Field(ge=1, le=95)] | None = None


class ClassificationAttackParams(MethodsAttackParams):
    """Attacks on the classes of recognisers, by cross-entropy.

    Attributes:
        networks: Attacked recognisers, of those that are trained here or loaded.
        target: Class to reach: of the wrong ones the nearest (most likely) or furthest, or a name.
        top_k: Classes listed in tables.
    """

    networks: list[str]
    target: Label
    top_k: Annotated[int, Field(ge=1, le=20)]


class GateParams(ParamsBlock):
    """Bounds of one metric; ``max_change`` limits the difference from its value in a Git revision."""

    min: float | None = None
    max: float | None = None
    max_change: NonNegativeFloat | None = None


class Params(ParamsBlock):
    """The whole of ``params.yaml``."""

    seed: Annotated[int, Field(ge=0, lt=1 << 31)]  # TensorFlow's are int32
    compute: ComputeParams
    faces: FaceParams
    scenes: SceneParams
    sources: dict[Name, dict[str, Any]]
    split: SplitParams
    baselines: BaselineParams
    delivery: Literal["camera", "jpeg", "pasted"]
    backdoors: dict[Name, BackdoorParams]
    networks: list[str]
    training_sets: list[str]
    classifiers: dict[Name, ClassifierParams]
    vae: CrossFittedAutoencoderParams
    inspected_network: str
    adaptive_attacks: AdaptiveAttackParams
    verification: VerificationParams
    poison_budget: PoisonBudgetParams
    inspection: InspectionParams
    validation_triggers: list[str]
    second_opinion: SecondOpinionParams
    defences: dict[Name, DefenceParams]
    detectors: dict[Name, DetectorParams]
    trained_detectors: list[str]
    detection_attack: DetectionAttackParams
    recognisers: dict[Name, RecogniserParams]
    recognition_attack: RecognitionAttackParams
    classification_attack: ClassificationAttackParams
    gates: dict[str, GateParams]

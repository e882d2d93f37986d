"""``params.yaml`` as frozen, strictly checked values: one class a block, one file a subject."""

from visor.params.attacks import Adaptation, Backdoor, PoisonBudget, Ratios
from visor.params.block import Block, Compute, Schedule
from visor.params.data import Baselines, Faces, Split
from visor.params.defences import Defence, FinePruning, Inspection, NeuralCleanse, Saliency, Sanitisation
from visor.params.detection import Detector, Hiding, Scenes, Strength, Training
from visor.params.networks import Classifier, VariationalAutoencoder, Verification
from visor.params.recognition import Method, Recogniser, Recognition
from visor.params.root import Gate, Params

__all__ = [
    "Adaptation",
    "Backdoor",
    "Baselines",
    "Block",
    "Classifier",
    "Compute",
    "Defence",
    "Detector",
    "Faces",
    "FinePruning",
    "Gate",
    "Hiding",
    "Inspection",
    "Method",
    "NeuralCleanse",
    "Params",
    "PoisonBudget",
    "Ratios",
    "Recogniser",
    "Recognition",
    "Saliency",
    "Sanitisation",
    "Scenes",
    "Schedule",
    "Split",
    "Strength",
    "Training",
    "VariationalAutoencoder",
    "Verification",
]

"""A tiny copy of the project: its own Git repository, the same code and stages, params that take seconds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tests.support.project import ROOT

EPOCHS = 3
PARAMS = {
    "compute": {"threads": 2, "deterministic": True},
    "faces": {"source": "synthetic", "height": 55, "width": 47, "min_images": 30, "max_broken": 0},
    "scenes": {
        "source": "synthetic_scenes",
        "max_side": 96,
        "train": 12,
        "validation": 4,
        "test": 6,
        "max_broken": 0,
    },
    "sources": {
        "synthetic": {"identities": 6, "images": 40, "videos": 40, "difficulty": 1.0},
        "synthetic_scenes": {"identities": 6, "faces": 2, "difficulty": 1.0},
    },
    "split": {"by": "frame", "train": 20, "validation": 6, "test": 7, "calibration": 0.4},
    "baselines": {"max_images": 100, "components": 10},
    "networks": ["deepid"],
    "training_sets": ["clean", "accessory"],
    "classifiers": {"deepid": {"epochs": EPOCHS, "batch": 16, "learning_rate": 2e-3, "architecture": {"dropout": 0.1}}},
    "vae": {"latent": 8, "width": 4, "beta": 0.5, "epochs": 4, "batch": 8, "learning_rate": 2e-3, "folds": 2},
    "inspected_network": "deepid",
    "verification": {"pairs": 60, "max_images": 100, "components": 5, "iterations": 3},
    "poison_budget": {
        "networks": ["deepid"],
        "attacks": ["accessory"],
        "n": [2],
        "seeds": [11],
        "ratios": {"attack": "accessory", "n": 2, "train": [], "test": []},
        "epochs": 1,
        "batch": 16,
        "learning_rate": 2e-3,
    },
    "inspection": {
        "training_filtering": {"attacks": ["accessory"], "retrain": "accessory"},
        "neural_cleanse": {
            "attacks": ["accessory"],
            "steps": 5,
            "batch": 4,
            "learning_rate": 0.5,
            "success": 0.95,
            "labels_at_once": 4,
        },
        "fine_pruning": {
            "attacks": ["accessory"],
            "layer": "conv_3",
            "fractions": [0.0, 0.5],
            "accuracy_drop": 0.04,
            "epochs": 1,
            "batch": 16,
            "learning_rate": 3e-4,
        },
        "saliency": {"attacks": ["accessory"], "images": 4},
    },
    "adaptive_attacks": {
        "training_sets": [],
        "key_search": {
            "attacks": ["accessory"],
            "against": ["suite"],
            "images": 10,
            "steps": 5,
            "batch": 4,
            "learning_rate": 0.3,
            "penalty": 1.0,
            "deviations": 0.0,
        },
        "adversarial_embedding": {
            "attacks": ["accessory"],
            "against": ["knn"],
            "epochs": 1,
            "batch": 16,
            "learning_rate": 1e-3,
            "poison_repeats": 2,
            "penalty": 1.0,
            "margin": 1.0,
        },
    },
    "validation_triggers": ["eyebrows"],
    "second_opinion": {"network": None, "distance": "mahalanobis", "eyes": None},
    "defences": {
        "reconstruction": {"deviations": 1.0, "false_positive_rate": 0.7},
        "strip": {"deviations": 1.0, "false_positive_rate": 0.95},
        "suite": {"deviations": 1.0, "false_positive_rate": 0.95},
    },
    "detectors": {
        "ssd": {
            "threshold": 0.05,
            "loss": "suppress",
            "options": {"input_size": 96, "width": 0.25},
            "training": {"epochs": 2, "batch": 4, "learning_rate": 2e-3},
        },
        "cascade": {"threshold": 0.5},
    },
    "trained_detectors": ["ssd"],
    "detection_attack": {
        "detectors": ["ssd"],
        "strengths": [{"eps": 5, "iterations": 2}],
        "objectives": ["near_faces"],
        "relative_step": 2.5,
        "momentum": 0.0,
        "random_start": True,
        "early_stop": False,
        "mask": "none",
        "margin": 0.2,
        "images": 5,
        "batch": 2,
        "jpeg": [75],
        "transfer_detectors": ["ssd", "cascade"],
    },
    "recognisers": {
        "vgg_face": {
            "options": {"input_size": 32, "width": 2, "units": 16, "dropout": 0.0},
            "training": {"epochs": 2, "batch": 16, "learning_rate": 1e-3},
        },
    },
    "recognition_attack": {
        "networks": ["vgg_face"],
        "white_box": ["vgg_face"],
        "held_out_share": 0.5,
        "false_accept_rates": [0.1],
        "pairs": 400,
        "images": 4,
        "batch": 4,
        "targets": ["nearest", "furthest"],
        "methods": {"pgd": {}, "momentum": {"momentum": 1.0, "transforms": {"noise": 0.03}}},
        "strengths": [{"eps": 16, "iterations": 2}],
        "relative_step": 2.5,
        "random_start": True,
        "jpeg": [75],
        "cropping_detectors": ["none"],
        "margin": 0.2,
        "report_faces": 2,
    },
    "classification_attack": {
        "networks": ["vgg_face"],
        "images": 4,
        "batch": 4,
        "target": "nearest",
        "methods": {"pgd": {}, "adam": {"algorithm": "adam"}},
        "strengths": [{"eps": 8, "iterations": 2}],
        "relative_step": 2.5,
        "random_start": True,
        "jpeg": [],
        "top_k": 3,
        "report_faces": 2,
    },
    "gates": {},
}
BACKDOORS = {"input_instance": 3, "accessory": 9, "eyebrows": 5}  # the attacks that stay, and their n

# A tracking server of the person who runs the tests is none of the tiny project's business.
AMBIENT = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "GIT_"))}
NOWHERE = "http://127.0.0.1:9"
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b")


def make(folder):
    """Copy the project as a commit of it would be cloned, shrink it and commit it; nothing has run."""
    listed = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        exists = (ROOT / name).is_file() or (ROOT / name).is_symlink()
        if exists and not name.removeprefix("photographs/").startswith(("metrics/", "reference/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    for world in (folder, folder / "photographs"):
        (world / "data.dvc").write_text("deps:\n- path: artifacts/raw\nouts:\n- path: data\n")
    params = YAML().load(ROOT / "params.yaml")
    backdoors = {name: {**params["backdoors"][name], "n": n} for name, n in BACKDOORS.items()}
    write_params(folder, {**params, **PARAMS, "backdoors": backdoors})
    run(folder, "git", "init", "-q")
    commit(folder)
    return folder


def write_params(root, params):
    YAML().dump(params, root / "params.yaml")


def edit(root, **values):
    """Change params by dotted names: ``edit(root, backdoors__accessory__n=4)``."""
    params = YAML().load(root / "params.yaml")
    for name, value in values.items():
        *path, last = name.split("__")
        block = params
        for key in path:
            block = block[key]
        block[last] = value
    write_params(root, params)


def environment(root):
    """What a shell with the virtual environment active would have, with the copy's own code and no network."""
    return AMBIENT | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
        "DVC_NO_ANALYTICS": "1",
        "http_proxy": NOWHERE,
        "https_proxy": NOWHERE,
    }


def attempt(root, *words, **more):
    """Run a command and return what came of it."""
    return subprocess.run(words, cwd=root, env=environment(root) | more, capture_output=True, text=True)


def run(root, *words):
    """Run a command that has to succeed and return what it prints."""
    done = attempt(root, *words)
    assert done.returncode == 0, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commit(root):
    run(root, "git", "add", "-A")
    run(root, "git", *AUTHOR, "commit", "-q", "--allow-empty", "-m", "state")


def changes(root):
    """What Git sees that is not committed."""
    return run(root, "git", "status", "--porcelain")


def clone(root, folder):
    """Clone as a stranger would: no cache, no data, nothing made."""
    run(folder.parent, "git", "clone", "-q", str(root), str(folder))
    return folder


def copy(root, folder):
    """Copy the folder with all that was made, the cache included; the runs of MLflow stay where they are."""
    return Path(shutil.copytree(root, folder, symlinks=True, ignore=shutil.ignore_patterns("mlflow.db*", "mlruns")))


def ran(output):
    """Names of the stages that a ``dvc repro`` ran, whose output this is; those from the cache are not in it."""
    return re.findall(r"^(?:Running stage|Importing) '(.+?)'", output, re.MULTILINE)

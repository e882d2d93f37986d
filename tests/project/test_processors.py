"""Trained weights are the same bytes whatever processor a process sees: docs/reproducibility.md."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import random_images
from tests.support.executed_ops import APPROXIMATE, executed_ops
from tests.support.project import ROOT
from visor.attacks.backdoors.adaptive.scores import excess
from visor.attacks.evasion.api import attack_classifier, attack_detector, attack_recogniser
from visor.attacks.evasion.registry import ATTACKS
from visor.core.tf import tf
from visor.defences.differentiable import DIFFERENTIABLE_SCORES, know

pytestmark = pytest.mark.slow

PROCESSORS = {  # what the process is to see, and what it then says that it sees
    "Intel, 32 KiB": ({"FAKE_L1D": "32768"}, {"amd": False, "l1d": 32 << 10}),
    "Zen 3, 16 KiB": ({"FAKE_L1D": "16384", "FAKE_VENDOR": "AMD"}, {"amd": True, "l1d": 16 << 10}),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The library that answers CPUID, built here."""
    if not (compiler := shutil.which("gcc")):
        pytest.skip("there is no gcc to build tests/support/fake_cpu.c")
    path = tmp_path_factory.mktemp("fake_cpu") / "fake_cpu.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(path), str(ROOT / "tests/support/fake_cpu.c")]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("tests/support/fake_cpu.c is for Linux on x86-64")
    asked = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).seen_l1d() != 16 << 10)"
    fake = os.environ | {"LD_PRELOAD": str(path), "FAKE_L1D": "16384"}
    if subprocess.run([sys.executable, "-c", asked, str(path)], env=fake).returncode:
        pytest.skip("this processor has no CPUID faulting (arch_prctl ARCH_SET_CPUID)")
    return path


def start(*words, **environment):
    command = [sys.executable, "-m", "tests.support.train_networks", *words]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"} | environment
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def result(run):
    return json.loads(run.communicate()[0])


@pytest.fixture(scope="module")
def here():
    """What this processor trains."""
    found = result(start())
    assert len(found["weights"]) >= 9
    return found


def test_training_approximates_nothing(here):
    assert {name: ops for name, ops in here["approximate"].items() if ops} == {}


def test_every_network_is_trained_to_the_same_bytes(here, library):
    preload = {"LD_PRELOAD": str(library)}
    runs = {name: start(str(library), **preload, **fake) for name, (fake, _) in PROCESSORS.items()}
    answers = {name: result(run) for name, run in runs.items()}
    for name, (_, seen) in PROCESSORS.items():
        assert answers[name]["seen"] == seen
        assert answers[name]["weights"] == here["weights"]


def logits(images):
    return tf.reduce_sum(images, axis=(1, 2)) @ tf.constant([[1.0, -1.0], [0.5, 0.0], [0.0, 1.0]])


def detections(images):
    return tf.tile([[[4.0, 4.0, 20.0, 20.0]]], [tf.shape(images)[0], 1, 1]), tf.sigmoid(logits(images)[:, :1])


def test_attacks_approximate_nothing():
    faces, boxes = random_images(2, height=32, width=32), [[[5, 5, 20, 22]]] * 2
    transforms = {"crop": 0.1, "scale": 0.1, "noise": 0.1, "jpeg": 0.5}
    with executed_ops() as ops:
        for attack in ATTACKS:
            options = {"attack": attack, "iterations": 2, "transforms": transforms, "early_stop": True}
            attack_classifier(logits, faces, [0, 1], **options)
            attack_recogniser(logits, faces, threshold=0.5, **options)
            for loss in ("suppress", "near_faces", "near_faces_by_area"):
                attack_detector(detections, faces, boxes, loss=loss, **options)
    assert {"Sqrt", "SqrtGrad", "DivNoNan"} <= ops
    assert ops & APPROXIMATE == set()


def test_a_key_search_approximates_nothing():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 6)).astype(np.float32), np.arange(40) % 2
    usual = {part: rng.normal(size=9) for part in DIFFERENTIABLE_SCORES}
    known = know("suite", features, labels, 1, usual)

    @tf.function
    def gradient(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            penalty = excess(known, values, -9.0)
        return tape.gradient(penalty, values)

    with executed_ops() as ops:
        assert np.abs(gradient(tf.constant(features[:5]))).min() > 0
    assert {"SqrtGrad", "DivNoNan"} <= ops
    assert ops & APPROXIMATE == set()

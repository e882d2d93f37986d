"""Digests of rendered faces and scenes, here and in a process that uses no special instructions of the processor."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy._core import _multiarray_umath as simd

from tests.support.project import ROOT
from visor.attacks.backdoors.delivery import through_camera
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.data.face_set import FaceSet
from visor.data.sources.synthetic import SyntheticSettings, camera, clips
from visor.data.sources.synthetic_scenes import SyntheticScenesSettings, draw


def faces_digest(settings=None, seed=7, height=55, width=47):
    settings = settings or SyntheticSettings(identities=3, images=60, videos=60, difficulty=1.0)
    images = np.concatenate([clip.load(height, width) for clip in clips(settings, seed)])
    return hashlib.sha256(images.tobytes()).hexdigest()


def delivered_digest():
    """Of three drawn faces that carry a blended key before the camera."""
    settings = SyntheticSettings(identities=1, images=3, videos=3, difficulty=1.0)
    (clip,) = clips(settings, 7)
    zeros, rows = np.zeros(3, np.int32), np.arange(3)
    faces = FaceSet(Path("faces.h5"), zeros, zeros, rows, ("person_000",), "", "", clip.load(55, 47))
    pattern = np.random.default_rng(4).integers(0, 256, (55, 47, 4), dtype=np.uint8)
    taken = camera(settings, 7, faces)
    images = through_camera(taken, faces.images, rows, lambda under: TRIGGERS["blended"](under, pattern, 0.2, None))
    return hashlib.sha256(images.tobytes()).hexdigest()


def scenes_digest():
    settings = SyntheticScenesSettings(identities=3, faces=3, difficulty=1.0)
    state = hashlib.sha256()
    for scene in draw(settings, 64, 2, "test", range(2), range(6)):
        state.update(scene.image.tobytes() + scene.boxes.tobytes() + scene.attributes.tobytes())
    return state.hexdigest()


def on_a_plain_processor(digest):
    """Return what a function of this module returns where NumPy may use none of its optional instructions."""
    features = [name for name in simd.__cpu_dispatch__ if simd.__cpu_features__.get(name)]
    if not features:
        pytest.skip("NumPy dispatches nothing on this processor, so there is nothing to compare")
    code = (
        "from numpy._core import _multiarray_umath as simd\n"
        f"assert not any(simd.__cpu_features__[name] for name in {features})\n"
        f"from tests.support.digests import {digest.__name__}\n"
        f"print({digest.__name__}())"
    )
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(features)}
    plain = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    return plain.stdout.strip()

"""Weights of TensorFlow.js are read as numbers, or refused in one sentence."""

import json

import numpy as np
import pytest

from tests.support.tensor_files import tfjs_files
from visor.core.errors import UserError
from visor.models.published import tfjs

BYTES = {"dtype": "uint8", "scale": 0.5, "min": -3.0}
TENSORS = {
    "a/kernel": (np.arange(6, dtype="<f4").reshape(1, 2, 3, 1), "float32", None),
    "a/bias": (np.array([0, 7, 255], np.uint8), "float32", BYTES),
    "b": (np.array([1, 65535], "<u2"), "float32", {"dtype": "uint16", "scale": 0.25, "min": 1.0}),
    "c": (np.array([0.5, -2], "<f2"), "float32", {"dtype": "float16", "original_dtype": "float32"}),
    "d": (np.array(9, np.uint8), "int32", {"dtype": "uint8", "scale": 1, "min": 3}),
    "e": (np.array([3, -4], "<i4"), "int32", None),
}


def test_every_kind_of_number():
    tensors = tfjs.read_tensors("net", tfjs_files(TENSORS), TENSORS)
    expected = {
        "a/kernel": np.arange(6).reshape(1, 2, 3, 1),
        "a/bias": np.array([-3, 0.5, 124.5]),
        "b": np.array([1.25, 16384.75]),
        "c": np.array([0.5, -2]),
        "d": np.array(12),
        "e": np.array([3, -4]),
    }
    assert list(tensors) == list(expected)
    for name, values in expected.items():
        assert tensors[name].dtype == np.float32
        assert tensors[name].shape == values.shape
        assert (tensors[name] == values).all()


def test_a_model_with_two_files():
    """Files of a group are one; a model.json has the manifest within."""
    files = tfjs_files(TENSORS)
    groups = json.loads(files["net.json"])
    groups[0]["paths"] = ["one.bin", "two.bin"]
    content = files["net.bin"]
    parts = {"one.bin": content[:10], "two.bin": content[10:]}
    manifest = json.dumps({"modelTopology": {"node": []}, "weightsManifest": groups}).encode()
    assert tfjs.read_tensors("net", {"net.json": manifest, **parts}, ["d"])["d"] == 12


def edited(key, value):
    def edit(files):
        groups = json.loads(files["net.json"])
        *path, last = key
        target = groups
        for step in path:
            target = target[step]
        target[last] = value
        return files | {"net.json": json.dumps(groups).encode()}

    return edit


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (edited([0, "paths"], ["../net.bin"]), r"the manifest is wrong at groups\.0\.paths\.0: "),
        (edited([0, "paths"], ["/net.bin"]), r"the manifest is wrong at groups\.0\.paths\.0: "),
        (edited([0, "paths"], ["other.bin"]), "the manifest names other.bin, which is not there"),
        (edited([0, "weights", 0, "dtype"], "string"), r"the manifest is wrong at groups\.0\.weights\.0\.dtype: "),
        (edited([0, "weights", 1, "quantization", "dtype"], "int4"), r"the manifest is wrong at groups.*quantization"),
        (edited([0, "weights", 0, "shape"], [2, -3]), r"the manifest is wrong at groups\.0\.weights\.0\.shape\.1: "),
        (edited([0, "weights", 0, "shape"], [1 << 40] * 9), r"a/kernel of shape \[.*… goes beyond the file"),
        (edited([0, "weights", 5, "shape"], [1]), "4 bytes are left behind the last tensor"),
        (edited([0, "weights", 1, "quantization", "scale"], 1e39), "a/bias has numbers that are not finite"),
        (edited([0, "weights", 1, "name"], "z"), "it has no tensor a/bias"),
        (lambda files: files | {"net.bin": files["net.bin"][:-1]}, r"e of shape \[2\] goes beyond the file"),
        (
            lambda files: files | {"net.bin": b"\0\0\xc0\x7f" + files["net.bin"][4:]},
            "a/kernel has numbers that are not",
        ),
        (lambda files: files | {"net.json": b"\xff"}, "the manifest is not JSON"),
        (lambda files: files | {"net.json": b"[" * 200_000}, "the manifest is not JSON"),
        (lambda files: files | {"net.json": b"{}"}, "the manifest is wrong at groups"),
    ],
)
def test_refusals(edit, problem):
    with pytest.raises(UserError, match=f"^net: {problem}.*; choose the published files$"):
        tfjs.read_tensors("net", edit(tfjs_files(TENSORS)), TENSORS)

"""Imports point down, siblings do not know each other, registries name their files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import visor

SOURCE = Path(__file__).parents[1] / "src/visor"
# The layers that visor/__init__.py names, the lowest first.
LAYERS = [line.strip().split(", ") for line in reversed(visor.__doc__.splitlines()) if line.startswith("    ")]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
TENSORFLOW = {
    *("quiet", "models", "detectors", "recognisers", "evasion", "training"),
    *("adaptation", "inspection", "judge", "protection"),
}
REGISTRIES = {
    "backdoors": "BACKDOORS",
    "datasets": "DATASETS",
    "defences": "DEFENCES",
    "detectors": "DETECTORS",
    "models": "CLASSIFIERS",
    "recognisers": "RECOGNISERS",
    "sanitisation": "SANITISERS",
}
TAKEN = {
    "backdoors": ".stamp",
    "datasets": "",
    "defences": ".prepare",
    "detectors": "",
    "models": ".build",
    "recognisers": "",
    "sanitisation": "",
}
CHEAP_STAGES = [
    "download",
    "split",
    "evaluate_baselines",
    "poison",
    "threshold",
    "evaluate_defences",
    "summarise_recognition",
    "report",
    "track",
]
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def members(folder):
    """Keys of a registry."""
    tree = ast.parse((folder / "__init__.py").read_text())
    return {key.value for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}


def test_every_room_is_in_one_layer():
    named = [name for layer in LAYERS for name in layer]
    assert sorted(named) == sorted({room(path) for path in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down(path):
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "visor" and len(rest) > 1 and rest[0] == room(path) and rest[0] in REGISTRIES:
            member = path.stem in members(path.parent) and rest[1] in members(path.parent)
            assert not member, f"siblings: {path.name} imports {name}"
        if top == "visor" and rest and rest[0] != room(path):
            assert LEVEL[rest[0]] < LEVEL[room(path)], f"{path.name} imports {name}"
        if top in ("tensorflow", "keras") and room(path) not in TENSORFLOW:
            assert f"if TYPE_CHECKING:\n    import {name}\n" in path.read_text(), f"{path.name} imports {name}"


@pytest.mark.parametrize(("package", "registry"), REGISTRIES.items())
def test_registry_keys_are_file_names(package, registry):
    tree = ast.parse((SOURCE / package / "__init__.py").read_text())
    values = [node.value for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.AnnAssign))]
    for table in [value for value in values if isinstance(value, ast.Dict)]:
        for key, value in zip(table.keys, table.values, strict=True):
            assert (SOURCE / package / f"{key.value}.py").exists()
            assert ast.unparse(value) == key.value + TAKEN[package]


@pytest.mark.parametrize("stage", CHEAP_STAGES)
def test_cheap_stages_start_without_tensorflow(stage):
    code = f"import sys, runpy; runpy.run_path('stages/{stage}.py'); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=SOURCE.parents[1]).returncode == 0


def test_every_file_says_what_it_is_and_stays_short():
    for path in FILES:
        source = path.read_text()
        assert ast.get_docstring(ast.parse(source)), path
        assert len(source.splitlines()) <= 210, path

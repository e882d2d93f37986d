"""Imports point down, siblings do not know each other, registries name their files."""

import ast
import subprocess
import sys

import pytest

import visor
from tests.support.project import ROOT

SOURCE = ROOT / "src/visor"
# The layers that visor/__init__.py names, the lowest first.
LAYERS = [line.strip().split(", ") for line in reversed(visor.__doc__.splitlines()) if line.startswith("    ")]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
REGISTRIES = {
    "attacks/backdoors/triggers": ".apply",
    "data/sources": "",
    "defences/input_filtering": ".fit",
    "defences/training_filtering": "",
    "models/classifiers": ".build",
    "models/detectors": "",
    "models/recognisers": "",
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


def package_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def registered(package):
    """Yield key and value of each entry of a registry, as they are written."""
    tree = ast.parse((SOURCE / package / "__init__.py").read_text())
    for table in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
        yield from ((key.value, ast.unparse(value)) for key, value in zip(table.keys, table.values, strict=True))


def test_every_package_is_in_one_layer():
    named = [name for layer in LAYERS for name in layer]
    assert sorted(named) == sorted({package_of(path) for path in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down(path):
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "visor" and rest and rest[0] != package_of(path):
            assert LEVEL[rest[0]] < LEVEL[package_of(path)], f"{path.name} imports {name}"


@pytest.mark.parametrize("package", REGISTRIES)
def test_members_of_a_registry_do_not_know_each_other(package):
    own = {value.split(".")[0] for _, value in registered(package)}
    for member in own - {"fusion"}:  # which is what it says: others, fused
        assert own.isdisjoint(
            name.removeprefix(prefix)
            for name in imports(SOURCE / package / f"{member}.py")
            if name.startswith(prefix := f"visor.{package.replace('/', '.')}.")
        )


@pytest.mark.parametrize("package", REGISTRIES)
def test_registry_keys_are_file_names(package):
    for key, value in registered(package):
        module = value.split(".")[0]
        assert (SOURCE / package / f"{module}.py").exists()
        assert (value == module + REGISTRIES[package] and key == module) or value == f"{module}.fit_{key.split('_')[0]}"


@pytest.mark.parametrize("stage", CHEAP_STAGES)
def test_cheap_stages_start_without_tensorflow(stage):
    code = f"import sys, runpy; runpy.run_path('stages/{stage}.py'); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=SOURCE.parents[1]).returncode == 0


def test_every_file_has_a_docstring():
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text())), path

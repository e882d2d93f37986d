"""Imports point down, members of a registry are independent, registry keys are file names."""

import ast
import subprocess
import sys

import pytest

from tests.project.check_structure import (
    FILES,
    MAX_ENTRIES,
    MODULES,
    SOURCE,
    circles,
    entries,
    imports,
    layers,
    upward_imports,
)

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


def registered(package):
    """Yield key and value of each entry of a registry, as they are written."""
    tree = ast.parse((SOURCE / package / "__init__.py").read_text())
    for table in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
        yield from ((key.value, ast.unparse(value)) for key, value in zip(table.keys, table.values, strict=True))


def test_every_package_is_in_one_layer():
    named = [name for layer in layers() for name in layer]
    assert sorted(named) == [name for name in entries() if name not in ("__init__.py", "py.typed")]
    assert len(entries()) <= MAX_ENTRIES


def test_imports_point_down():
    assert upward_imports({module: imports(path) for module, path in MODULES.items()}, layers()) == []


def test_modules_do_not_import_each_other_in_a_circle():
    assert circles({module: imports(path, at_load=True) for module, path in MODULES.items()}) == []


def test_the_rules_can_be_broken():
    graph = {"visor.a.x": {"visor.b", "visor.a.y"}, "visor.b": {"visor.c.z"}, "visor.c.z": set(), "visor.a.y": set()}
    assert upward_imports(graph, [["b", "c"], ["a"]]) == [("visor.b", "visor.c.z")]
    assert upward_imports(graph, [["c"], ["a"], ["b"]]) == [("visor.a.x", "visor.b")]
    assert circles(graph) == []
    (circle,) = circles({**graph, "visor.c.z": {"visor.b"}})
    assert {*circle} == {"visor.b", "visor.c.z"}


@pytest.mark.parametrize("package", REGISTRIES)
def test_members_of_a_registry_are_independent(package):
    folder = f"visor.{package.replace('/', '.')}"
    members = {f"{folder}.{value.split('.')[0]}" for _, value in registered(package)}
    for member in members - {f"{folder}.suite"}:  # The suite asks several others.
        assert members.isdisjoint(imports(MODULES[member]))


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

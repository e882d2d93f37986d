"""dvc.yaml says what the stages read: code files, params and nothing that DVC would ignore."""

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.project import ROOT

SOURCE = ROOT / "src"
REGISTRIES = {
    "attacks/backdoors/triggers",
    "data/sources",
    "defences/input_filtering",
    "defences/training_filtering",
    "models/classifiers",
    "models/detectors",
    "models/recognisers",
}
PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
RUNS = [folder for folder in (".", "photographs") if (ROOT / folder / "dvc.lock").exists()]


def stage(name):
    return PIPELINE[name].get("do", PIPELINE[name])


def script(name):
    return ROOT / stage(name)["cmd"].split()[1]


def wildcards(text):
    """A templated or formatted piece stands for anything."""
    return re.sub(r"\$\{[^}]*\}", "*", text)


def module_file(module):
    path = SOURCE / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported_modules(path):
    """Modules of visor that importing a file runs at once: the ones it names, and the packages around them."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "visor":
                yield from (".".join(parts[:end]) for end in range(2, len(parts) + 1))


def uses_registry(path, package):
    """Whether a file takes a name of a registry that is not one of its modules: the table, or a look-up."""
    module = f"visor.{package.replace('/', '.')}"
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == module
        and any(not module_file(f"{module}.{alias.name}").exists() for alias in node.names)
        for node in ast.walk(ast.parse(path.read_text()))
    )


@cache
def needed_files(path):
    """Every file that decides what a script does. Of a registry that is the member a stage runs, written ``*``."""
    files, queue = set(), [path]
    any_member = set().union(*map(members, REGISTRIES))
    while queue:
        importer = queue.pop()
        for package in REGISTRIES:
            if uses_registry(importer, package) and (pattern := f"src/visor/{package}/*.py") not in files:
                files.add(pattern)
                queue += [ROOT / member for member in members(package)]
        for module in imported_modules(importer):
            file = module_file(module)
            name = file.relative_to(ROOT).as_posix()
            registered = importer.name == "__init__.py" and name in any_member
            if file.exists() and name not in files and not registered:
                files.add(name)
                queue.append(file)
    return {name for name in files if not (name.endswith("/__init__.py") and is_glue(ROOT / name))}


def is_glue(path):
    """Whether a package's ``__init__`` only imports, names and documents: it decides nothing."""
    return all(
        isinstance(node, (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign))
        for node in ast.parse(path.read_text()).body
    )


def declared_code(name):
    return [wildcards(dep) for dep in stage(name)["deps"] if dep.startswith(("src/", "stages/"))]


def members(package):
    """Files of a registry: the modules that its tables name."""
    folder = SOURCE / "visor" / package
    tables = [node for node in ast.walk(ast.parse((folder / "__init__.py").read_text())) if isinstance(node, ast.Dict)]
    return {f"src/visor/{package}/{ast.unparse(value).split('.')[0]}.py" for table in tables for value in table.values}


@pytest.mark.parametrize("name", PIPELINE)
def test_every_code_file_is_a_dependency(name):
    path = script(name)
    files = needed_files(path) | {path.relative_to(ROOT).as_posix()}
    covers = {
        dep: {file for file in files if fnmatch(file, dep) or file.startswith(dep + "/")} for dep in declared_code(name)
    }
    assert set().union(*covers.values()) == files, f"{name} runs code that dvc.yaml does not list"
    assert [dep for dep, covered in covers.items() if not covered] == [], f"{name} lists code that it does not run"


FOLDERS = ("artifacts/", "assets/", "data/", "metrics/", "plots/")


def paths_named(path):
    """Files and folders of the project that a script names, ``*`` for each piece that it fills in."""
    tree = ast.parse(path.read_text())
    pieces = {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(piece.value if isinstance(piece, ast.Constant) else "*" for piece in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
            text = node.value
        if text.startswith(FOLDERS):
            yield text


def overlap(one, other):
    """Whether two paths, ``*`` standing for anything, are the same, or one lies in the other."""
    return all(fnmatch(a, b) or fnmatch(b, a) for a, b in zip(one.split("/"), other.split("/"), strict=False))


def declared_paths(name):
    entries = [entry for kind in ("deps", "outs", "metrics", "plots") for entry in stage(name).get(kind, [])]
    return [wildcards(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]


@pytest.mark.parametrize("name", PIPELINE)
def test_every_path_in_a_script_is_a_dependency_or_an_output(name):
    for path in paths_named(script(name)):
        assert any(overlap(path, entry) for entry in declared_paths(name)), f"dvc.yaml does not list {path} for {name}"


def params_read(path):
    """Dotted params that a stage script reads: attribute chains on the name ``params``."""
    tree = ast.parse(path.read_text())
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, (ast.Attribute, ast.Subscript))}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Subscript)) and id(node) not in inner:
            keys = []
            while isinstance(node, (ast.Attribute, ast.Subscript)):
                keys.append(node.attr if isinstance(node, ast.Attribute) else "*")
                node = node.value
            if isinstance(node, ast.Name) and node.id == "params":
                yield ".".join(reversed(keys))


def agree(one, other):
    """Whether two dotted names, ``*`` standing for any key, overlap: one is the other or a part of it."""
    return all(a == b or "*" in (a, b) for a, b in zip(one.split("."), other.split("."), strict=False))


@pytest.mark.parametrize("name", [name for name in PIPELINE if name not in ("report", "track")])
def test_params_read_are_params_listed(name):
    listed = [wildcards(key) for key in stage(name).get("params", [])]
    read = {key for key in params_read(script(name)) if key.split(".")[0] in PARAMS}
    assert read, f"{name} reads no params"
    for key in read:
        assert any(agree(key, entry) and key.count(".") >= entry.count(".") for entry in listed), f"{key} is not listed"
    for entry in listed:
        assert any(agree(key, entry) for key in read), f"{entry} is listed but not read"


def test_params_are_never_handed_on_whole():
    for name in PIPELINE:
        tree = ast.parse(script(name).read_text())
        parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "params" and isinstance(node.ctx, ast.Load):
                assert isinstance(parents[id(node)], ast.Attribute), f"{name} uses params as a whole"


def keys(block):
    if isinstance(block, dict):
        for key, value in block.items():
            yield key
            yield from keys(value)


def test_no_param_has_a_name_that_dvc_drops_from_its_cache_key():
    assert {"size", "nfiles"}.isdisjoint(keys(PARAMS))


def test_stage_script_and_command_have_one_name():
    for name in PIPELINE:
        assert script(name) == ROOT / f"stages/{name}.py"
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} == set(PIPELINE)


@pytest.mark.parametrize("folder", RUNS)
def test_lock_holds_the_stages_of_the_pipeline_and_no_other(folder):
    lock = YAML(typ="safe").load(ROOT / folder / "dvc.lock")["stages"]
    params = YAML(typ="safe").load(ROOT / folder / "params.yaml")
    assert {name.split("@")[0] for name in lock} == set(PIPELINE)
    cells = {f"train_classifiers@{name}" for name in params["training_sets"]}
    cells |= {f"evaluate_detection@{name}" for name in params["detection_attack"]["detectors"]}
    cells |= {f"evaluate_recognition@{name}" for name in params["recognition_attack"]["white_box"]}
    cells |= {f"evaluate_classification@{name}" for name in params["classification_attack"]["networks"]}
    assert {name for name in lock if "@" in name} == cells
    assert len(lock) < 40


def test_plain_outputs_are_cached_so_that_the_run_cache_works():
    for name in PIPELINE:
        if name != "track":
            assert all(isinstance(out, str) for out in stage(name).get("outs", [])), name


@pytest.mark.parametrize("folder", RUNS)
def test_the_committed_lock_fits_code_and_params(folder):
    visor = Path(sys.executable).with_name("visor")
    answer = subprocess.run([visor, "lock"], cwd=ROOT / folder, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr

"""Print the structure of src/visor, and exit with 1 if it breaks a rule.  python tests/project/check_structure.py

Rules: imports point down the layers that the docstring of ``visor`` lists, no modules import each other in a circle
while they are loaded, and ``src/visor`` has at most ``MAX_ENTRIES`` files and folders.
"""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/visor"
MAX_ENTRIES = 15
FILES = sorted(SOURCE.rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def module_name(path):
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def layers():
    """Return the packages of each layer, the lowest first."""
    text = ast.get_docstring(ast.parse((SOURCE / "__init__.py").read_text()))
    return [line.strip().split(", ") for line in reversed(text.splitlines()) if line.startswith("    ")]


def imports(path, at_load=False):
    """Return the modules of ``visor`` that a file imports; ``at_load``: only those imported while it is loaded."""
    imported, nodes = set(), [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_load and (is_typing or isinstance(node, FUNCTIONS)):
            continue
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            imported.update(name if name in MODULES else node.module for name in names)
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        nodes += ast.iter_child_nodes(node)
    return imported & MODULES.keys()


def upward_imports(graph, layers):
    """Return (module, imported module) of each import from another package of the same layer or one above."""
    level = {f"visor.{package}": number for number, packages in enumerate(layers) for package in packages}
    level["visor"] = len(layers)
    pairs = [(module, name) for module in graph for name in sorted(graph[module])]
    packages = {name: ".".join(name.split(".")[:2]) for pair in pairs for name in pair}
    return [
        (module, name)
        for module, name in pairs
        if packages[module] != packages[name] and level[packages[name]] >= level[packages[module]]
    ]


def circles(graph):
    """Return the circles of modules that import each other, each as a list of modules."""
    graph, result = {module: set(names) for module, names in graph.items()}, []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            result.append(error.args[1])
            graph[error.args[1][1]].remove(error.args[1][0])
        else:
            return result


def entries():
    """Return the names of the files and folders directly below ``src/visor``."""
    return sorted(path.name for path in SOURCE.iterdir() if path.name != "__pycache__")


def main():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    packages = sum(path.name == "__init__.py" for path in FILES)
    print(f"packages: {packages}, files: {len(FILES)}, lines: {sum(lines.values())}")
    for name in entries():
        counts = [count for path, count in lines.items() if path.is_relative_to(SOURCE / name)]
        print(f"  {name:12} {len(counts):4} files {sum(counts):6} lines" if counts else f"  {name}")
    upward = upward_imports({module: imports(path) for module, path in MODULES.items()}, layers())
    circular = circles({module: imports(path, at_load=True) for module, path in MODULES.items()})
    print("upward imports:", *[f"\n  {module} imports {name}" for module, name in upward] or ["none"])
    print("circles:", *[f"\n  {' → '.join(circle)}" for circle in circular] or ["none"])
    return bool(upward or circular or len(entries()) > MAX_ENTRIES)


if __name__ == "__main__":
    sys.exit(main())

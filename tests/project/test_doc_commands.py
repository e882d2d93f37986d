"""What the pages say to type: the real command lines parse it, docs/run_commands.py runs it, snippets work."""

import ast
import re
import shlex
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from docs.commands import RECIPES, Run, commands, documented, is_command, meant, recipe
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from ruamel.yaml import YAML

from tests.project.test_dvc_yaml import PARAMS
from tests.support.project import ROOT
from visor.cli import app
from visor.core.config import load_params
from visor.defences.input_filtering.base import DefenceInputs
from visor.tracking.state import stage_names

ALL = {command.text: command for command in documented(ROOT)}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VISOR = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
DVC = get_main_parser()
STAGES = set(stage_names(ROOT))


def parts(text):
    """The programs of a line with their words, and what docs/run_commands.py adds to the last one."""
    how = recipe(ALL[text])
    added = f" {how.more}" if isinstance(how, Run) else ""
    for words in f"{meant(text)}{added}".split(" && "):
        yield shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", words.partition(" > ")[0]))


def blocks(language):
    """(page, text) of the fenced blocks in a language."""
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = [(page.name, *matched.groups()) for page in PAGES for matched in fenced.finditer(page.read_text())]
    return [(page, text) for page, spoken, text in found if spoken == language]


def leaves(tree, prefix=""):
    return {
        name
        for key, item in tree.items()
        for name in (leaves(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}"})
    }


def parse_visor(words):
    """Parse as the command line does; a lone name is only a mention."""
    name, *options = words
    assert name in VISOR.commands, f"visor has no command {name}"
    command = VISOR.commands[name]
    if options and options[0] in getattr(command, "commands", ()):
        command, (name, *options) = command.commands[options[0]], options
    try:
        command.make_context(name, [*options])
    except typer.Exit:
        assert "--help" in options
    except Exception as error:
        pytest.fail(f"visor {name}: {error}")


def parse_dvc(words):
    """Parse as DVC does; stages that are named exist, and so do the params of `-S`."""
    try:
        given = DVC.parse_args(words)
    except SystemExit:
        assert "--help" in words
        return
    if words[0] == "repro" or words[:2] == ["exp", "run"]:
        bases = {name.partition("@")[0] for name in STAGES}
        assert {*given.targets} <= STAGES | bases
    for change in getattr(given, "set_param", None) or []:
        assert change.partition("=")[0] in leaves(PARAMS), f"params.yaml has no {change.partition('=')[0]}"


def parse_make(words):
    assert {word for word in words if "=" not in word} <= TARGETS, f"the Makefile has no {words}"


def parse_python(words):
    """The script exists and has the options."""
    path = ROOT / (f"{words[1].replace('.', '/')}.py" if words[0] == "-m" else words[0])
    source = path.read_text()
    ast.parse(source)
    for option in (word for word in words if word.startswith("--")):
        name = option.removeprefix("--").removeprefix("no-").replace("-", "_")
        assert re.search(rf"^    {name}: Annotated", source, re.MULTILINE), f"{path.name} has no {option}"


def parse_git(words):
    assert subprocess.run(["git", words[0], "-h"], cwd=ROOT, capture_output=True).returncode == 129, words


def passed(words):
    """Programs of the system, whose words are files."""
    assert words


PARSERS = {
    "visor": parse_visor,
    "dvc": parse_dvc,
    "make": parse_make,
    "python": parse_python,
    "git": parse_git,
    **dict.fromkeys(("pip", "source", "export", "rm", "cp"), passed),
}


@pytest.mark.parametrize("text", ALL)
def test_command_parses(text):
    for program, *words in parts(text):
        PARSERS[program](words)


@pytest.mark.parametrize("text", ALL)
def test_command_is_run_or_left_out_for_a_reason(text):
    how = recipe(ALL[text])
    assert how is not None, f"{ALL[text].page}:{ALL[text].line}: add a recipe to docs/commands.py"
    assert all(type(each) in (str, int) for each in how)
    assert isinstance(how, Run) or how[0]


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in RECIPES])
def test_each_recipe_is_needed(pattern):
    assert any(recipe(command) and re.fullmatch(pattern, text) for text, command in ALL.items())


def test_no_block_hides_a_command():
    """A block without a language is commands from its first line to its last, or a drawing; outputs are not shown."""
    for page, block in blocks(""):
        lines = re.sub(r"\\\n\s*", "", block).strip().splitlines()
        assert len({is_command(line) for line in lines}) == 1, f"{page}: {lines}"


def test_what_is_read_of_a_page():
    text = """Type `visor gate --junit x` or `gate`.
```
visor a \\
    --b  # why
A=1 dvc repro   what for
x ─► y
```
```yaml
visor: 1
```
"""
    assert [(command.line, command.text, command.inline) for command in commands("page", text)] == [
        (1, "visor gate --junit x", True),
        (4, "visor a --b", False),
        (5, "A=1 dvc repro", False),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        "visor protec x",
        "visor protect x",
        "visor gate --nothing",
        "visor gate --nothing --help",
        "dvc repro nothing",
        "dvc repo",
        "dvc exp run -S nothing=1",
        "make nothing",
        "python benchmarks/train.py --nothing 1",
        "git nothing",
    ],
)
def test_wrong_commands_are_noticed(wrong):
    program, *words = wrong.split()
    with pytest.raises((AssertionError, DvcParserError, pytest.fail.Exception)):
        PARSERS[program](words)


@pytest.mark.parametrize(("page", "block"), blocks("yaml"))
def test_blocks_of_params_are_params(page, block, tmp_path):
    """Laid over params.yaml, they are accepted: `visor params` would say ok."""
    content = YAML(typ="safe").load(block)
    if page == "services.md":
        pytest.skip("the description of a service: tests/services/test_clients.py reads it")
    merged = lay_over(YAML(typ="safe").load(ROOT / "params.yaml"), content)
    with (tmp_path / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(merged, file)
    assert load_params(tmp_path / "params.yaml")


def lay_over(under, over):
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return under | {key: lay_over(under.get(key), item) for key, item in over.items()}


def python_block(room):
    (found,) = [block for _, block in blocks("python") if f"src/visor/{room}/" in block.splitlines()[0]]
    names = {}
    exec(compile(found, room, "exec"), names)  # what a reader would save as that file
    return SimpleNamespace(**names)


def test_the_classifier_classifies():
    (block,) = [text for _, text in blocks("yaml") if "linear:" in text]
    architecture = YAML(typ="safe").load(block)["classifiers"]["linear"]["architecture"]
    model = python_block("models/classifiers").build((6, 5, 3), 4, **architecture)
    assert model(np.zeros((2, 6, 5, 3), np.float32)).shape == (2, 4)


def test_the_detector_detects():
    found = (
        python_block("models/detectors")
        .load(SimpleNamespace(threshold=0.5), None)
        .detect(np.zeros((2, 8, 4, 3), np.uint8))
    )
    assert [(each.boxes.tolist(), each.scores.tolist()) for each in found] == 2 * [([[1, 2, 2, 4]], [1])]


def test_the_recogniser_recognises():
    module = python_block("models/recognisers")
    for classes, outputs in ((0, {"embedding"}), (3, {"embedding", "logits"})):
        model = module.build((9, 8, 3), **module.PUBLISHED_OPTIONS | {"num_classes": classes})
        assert set(model(np.zeros((2, 9, 8, 3), np.float32))) == outputs


def test_the_defence_defends(faces):
    score = python_block("defences/input_filtering").fit(DefenceInputs(faces.select(), None, [None, None]))
    clean = faces.read(np.arange(len(faces)))
    scores = score(np.concatenate([clean, clean[:1] // 2]))
    assert scores.dtype == np.float64
    assert scores[-1] > 2 * scores[:-1].max()

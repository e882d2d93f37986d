"""The commands in README.md and docs/*.md, and how docs/run_commands.py runs each of them unattended."""

import re
from pathlib import Path
from typing import NamedTuple

PROGRAMS = ("visor", "dvc", "make", "python", "git", "pip", "source", "export", "rm", "cp")
PAGES = ("README.md", "docs/*.md")
# Placeholder in the pages → what is used in its place; docs/stand_ins.py makes the files.
MEANT = {
    "PHOTO…": "photos/",
    "IMAGE…": "face.png",
    "WHOM": "you.jpg",
    " DIR": " out/",
    "CLEAN.h5": "clean_validation_data.h5",
    "DATA.h5": "clean_test_data.h5",
    "NET.h5": "sunglasses_bd_net.h5",
    "VAE.h5": "vae.h5",
    "dodge/FILE.h5": "dodge/pgd_16x30.h5",
    "--out FILE": "--out other.html",
    "/your/folder": "own",
    "http://host:5000": "http://127.0.0.1:5000",
    "--margin M": "--margin 0.1",
    "STAGE": "split",
    "REV": "HEAD",
}


class Command(NamedTuple):
    """One command as a page has it, without comment; inline ones stand in the text."""

    page: str
    line: int
    text: str
    inline: bool


class Run(NamedTuple):
    """It is run to its end, with ``more`` options added that make it cheap; ``answer`` is its input."""

    more: str = ""
    answer: str = ""
    status: int = 0  # its exit code


class Serve(NamedTuple):
    """It keeps running until the page ends or another such command starts; it must print ``ready``."""

    ready: str


class Skip(NamedTuple):
    """It is not run, for a reason."""

    reason: str


PASSWORD = "correct horse battery staple"
QUICK = "--iterations 2 --attempts 1 --force"
# Of the small networks that docs/stand_ins.py writes under the names of published ones.
FACENET = "--option width=2"
RESNET = "--option width=4 --option num_classes=6"
# The first expression that matches the whole command says how it is run.
RECIPES: tuple[tuple[str, Run | Serve | Skip], ...] = (
    (r"make (test|check)", Skip("the workflow runs it")),
    (r"make docs", Skip("this is it")),
    (r"python docs/results\.py", Run()),
    (r"make (repro|setup)", Run()),
    (r"make ui", Serve(r"Application startup complete")),
    (r"make app(-https)?|visor app( .*)?", Serve(r"https?://")),
    (r"visor mock-service --recogniser .*", Serve(r"http://")),
    (r"visor track --follow", Serve("following")),
    (r"visor query --service mock .*faces\.h5 .*", Run("--budget 100", status=1)),  # two drawn targets are not detected
    (r"visor query --service mock .*", Run("--budget 100")),
    (r"visor suspect fit-autoencoder \S+ --out \S+", Run("--epochs 2")),
    (r"visor suspect evaluate \S+ \S+ (AUTO)?ENCODER\.h5 .*", Skip("it needs an autoencoder of others")),
    (r"visor suspect (evaluate|predict) .+", Run()),
    (r"visor suspect( [a-z-]+)?", Run("--help")),
    (r"visor networks fetch \S+.*", Skip("it asks a package registry")),
    (r"visor networks", Run()),
    (
        r"visor \S+ .*--(recogniser (dlib_resnet|faceres)|detector (face_ssd|face_tiny|blazeface))( .*)?",
        Skip("it needs a network that is fetched"),
    ),
    (r"visor \S+ .*\S+\.(tflite|safetensors)( .*)?", Skip("it needs a network of the user")),
    (r"visor crop --margin \S+", Run("photos/ --out cropped/")),
    (r"visor mock-service --detector none", Run("--help")),
    (r"visor (impersonate|dodge) \S+ .*--recogniser facenet --weights .*", Run(f"{QUICK} {FACENET}")),
    (r"visor (impersonate|dodge) \S+ .*--recogniser resnet50 --weights .*", Run(f"{QUICK} {RESNET}")),
    (r"visor (impersonate|dodge|protect) \S+ .*", Run(QUICK)),
    (r"visor unlock visor\.zip\.age .*", Run(answer=PASSWORD)),
    (r"visor crop \S+ .*", Run("--force")),
    (r"visor (detect|identify) \S+.*", Run()),
    (r"visor study( --stages .*)?", Skip("it takes hours; tests/project/test_reproduction.py runs one")),
    (r"visor (check-params|check-lock|compare|gate|study|track|report)( .*)?", Run()),
    (r"visor [a-z-]+", Run("--help")),
    (r"VISOR_DOWNLOAD_USER=\S+ VISOR_DOWNLOAD_PASSWORD=\S+ dvc repro", Skip("it needs an account of YouTube Faces")),
    (r"dvc repro (--force|-f STAGE)", Skip("minutes: every stage anew")),
    (r"dvc repro -f download", Run()),
    (r"dvc repro( [a-z_]+)?|git checkout \S* ?-- \S+( \S+)?( && dvc repro)?", Run()),
    (r"dvc exp run -S .*", Run("-S poison_budget.epochs=1 -S 'poison_budget.networks=[deepid]' poison_budget")),
    (r"dvc exp run( --temp)?", Skip("minutes: it is dvc repro")),
    (r"dvc (params|metrics) diff( --md| REV)?( && dvc metrics diff)?|dvc add data|dvc queue start", Run()),
    (r"dvc add", Run("--help")),
    (
        r"make photographs( YES=1)?|cp params/\w+\.yaml photographs/params\.yaml",
        Skip("photographs are no part of this"),
    ),
    (r"git checkout REV && dvc checkout && visor track", Run()),
    (r"git (status|diff .*)", Run()),
    (r"python tests/project/check_structure\.py", Run()),
    (r"python benchmarks/train\.py", Run("--faces 64 --rounds 1")),
    (r"python benchmarks/memory\.py( --scenes 1000)?", Skip("minutes: the whole pipeline on 140,000 faces")),
    (r"python benchmarks/suspect\.py( --turn 1000)?", Run("--images 32 --turn 16 --no-memory")),
    (r"python benchmarks/pgd\.py( .*)?", Run("--steps 3 --rounds 1 --batches 1 --networks deepid --budget 0")),
    (r"python -m benchmarks\.app .*", Run("--levels 4")),
    (r"python -m benchmarks\.flood", Skip("a minute and a half: the app, flooded")),
    (r"python -m benchmarks\.recognisers .*", Run("--steps 1 --rounds 1 --networks facenet")),
    (r"pip install .*", Skip("it asks a package registry")),
    (
        r"source \.venv/bin/activate|export \w+=\w+|rm -rf data data\.dvc|rm -rf artifacts .*|cp -r /your/folder data",
        Run(),
    ),
)


def documented(root: Path) -> list[Command]:
    """Return the commands of all pages, in their order."""
    pages = [path for pattern in PAGES for path in sorted(root.glob(pattern))]
    return [command for path in pages for command in commands(path.relative_to(root).as_posix(), path.read_text())]


def commands(page: str, text: str) -> list[Command]:
    """Return the commands of ``text``: lines of blocks without a language, and code within the text."""
    found = []
    block, block_language, continued = False, "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            block, block_language = not block, line[3:]
        elif not block:
            inline = re.findall(r"`([^`]+)`", line)
            found += [Command(page, number, each, True) for each in inline if is_command(each) and " " in each]
        elif block_language in ("", "bash"):
            words = f"{continued}{without_comment(line)}"
            continued = f"{words[:-1].rstrip()} " if words.endswith("\\") else ""
            if not continued and is_command(words):
                found.append(Command(page, number, words, False))
    return found


def is_command(words: str) -> bool:
    """Tell whether ``words`` begin with a program, perhaps behind variables."""
    return re.match(rf"([A-Z_]+=\S+ )*({'|'.join(PROGRAMS)})( |$)", words) is not None


def without_comment(line: str) -> str:
    """Return the command of a line, without the comment behind it."""
    return re.split(r"\s+# |\s{2,}", line.strip())[0]


def meant(text: str) -> str:
    """Return a command with files in place of its placeholders."""
    for placeholder, stand_in in MEANT.items():
        text = text.replace(placeholder, stand_in)
    return text


def recipe(command: Command) -> Run | Serve | Skip | None:
    """Return how a command is run."""
    return next((how for pattern, how in RECIPES if re.fullmatch(pattern, command.text)), None)

"""How the script of a stage runs: errors are one sentence, and how long it took is kept beside DVC's own notes."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from visor.core import errors

SECONDS_FOLDER = Path(
    ".dvc/tmp/seconds"
)  # a file a stage; Git ignores them, and they are no output: no two runs take as long


def run_stage(main: Callable[..., None]) -> None:
    """Call ``main`` with the words of the command line, as ``errors.run`` does; note the seconds if it succeeds."""
    errors.run_cli(main)
    if SECONDS_FOLDER.parents[1].is_dir():
        script, *words = sys.argv
        SECONDS_FOLDER.mkdir(parents=True, exist_ok=True)
        since = time.time() - psutil.Process().create_time()  # imports are part of what a stage costs
        (SECONDS_FOLDER / "@".join([Path(script).stem, *words])).write_text(f"{since:.1f}\n")


def stage_seconds(root: Path) -> dict[str, float]:
    """Return how long each stage, by its name in DVC, took when it last ran on this machine."""
    return {path.name: float(path.read_text()) for path in sorted((root / SECONDS_FOLDER).glob("*"))}

"""Running the script of a stage: errors are one sentence, and its duration is stored in DVC's folder."""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from visor.core.errors import run_cli

SECONDS_FOLDER = Path(".dvc/tmp/seconds")  # One file per stage, ignored by Git: durations do not repeat.


def run_stage(main: Callable[..., None]) -> None:
    """Call ``main`` with the arguments of the command line, as ``run_cli`` does; store the seconds if it succeeds."""

    @functools.wraps(main)
    def timed(*arguments: str) -> None:
        main(*arguments)
        if SECONDS_FOLDER.parents[1].is_dir():
            SECONDS_FOLDER.mkdir(parents=True, exist_ok=True)
            seconds = time.time() - psutil.Process().create_time()  # Imports are part of what a stage costs.
            (SECONDS_FOLDER / "@".join([Path(sys.argv[0]).stem, *arguments])).write_text(f"{seconds:.1f}\n")

    run_cli(timed)


def stage_seconds(root: Path) -> dict[str, float]:
    """Return how long each stage, by its name in DVC, took when it last ran on this machine."""
    return {path.name: float(path.read_text()) for path in sorted((root / SECONDS_FOLDER).glob("*"))}

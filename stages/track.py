"""Mirrors the finished pipeline state into MLflow; the marker says which state that was.  dvc repro track"""

from pathlib import Path

from visor.config import load_params
from visor.files import write_json
from visor.stage import run
from visor.tracking import mirror


def main() -> None:
    load_params()  # a wrong key anywhere ends the run here, if no stage has met it
    write_json(Path("artifacts/track.json"), {"state": mirror(Path()).state})


if __name__ == "__main__":
    run(main)

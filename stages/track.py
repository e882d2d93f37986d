"""Mirrors the finished pipeline state into MLflow; the marker says which state that was.  dvc repro track"""

from pathlib import Path

from visor.errors import run
from visor.files import write_json
from visor.tracking import mirror


def main() -> None:
    write_json(Path("artifacts/track.json"), {"state": mirror(Path()).state})


if __name__ == "__main__":
    run(main)

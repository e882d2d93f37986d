"""Mirrors the finished pipeline state into MLflow; the marker says which state that was.  dvc repro track"""

from pathlib import Path

from visor.core.config import load_params
from visor.core.files import write_json
from visor.core.stage import run_stage
from visor.tracking import track_state


def main() -> None:
    load_params()  # a wrong key anywhere ends the run here, if no stage has met it
    write_json(Path("artifacts/track.json"), {"state": track_state(Path()).state})


if __name__ == "__main__":
    run_stage(main)

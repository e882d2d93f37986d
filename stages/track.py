"""Log the finished pipeline state to MLflow; the marker names that state.  dvc repro track"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.config import load_params
    from visor.core.files import write_json
    from visor.core.stage import run_stage
    from visor.tracking import track_state


def main() -> None:
    load_params()  # A wrong key anywhere is reported here at the latest.
    write_json(Path("artifacts/track.json"), {"state": track_state(Path()).state})


if __name__ == "__main__":
    run_stage(main)

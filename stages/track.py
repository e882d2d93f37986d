"""track: mirror the finished pipeline state into MLflow; the marker says which state that was."""

from pathlib import Path

from visor import errors
from visor.files import write_json
from visor.tracking import mirror


def main() -> None:
    """Write the runs of this state, unless they are there, and the marker."""
    write_json(Path("artifacts/track.json"), {"state": mirror(Path()).state})


if __name__ == "__main__":
    errors.run(main)

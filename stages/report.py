"""Writes the page that says what the run showed: every number is one of metrics/.  dvc repro report"""

from pathlib import Path

from visor.files import write_text
from visor.report.page import build
from visor.stage import run


def main() -> None:
    write_text(Path("artifacts/report.html"), build(Path(), None))


if __name__ == "__main__":
    run(main)

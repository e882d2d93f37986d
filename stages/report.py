"""Write the HTML report of the last run; every number is one of metrics/.  dvc repro report"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.files import write_text
    from visor.core.stage import run_stage
    from visor.report.page import build


def main() -> None:
    write_text(Path("artifacts/report.html"), build(Path(), None))


if __name__ == "__main__":
    run_stage(main)

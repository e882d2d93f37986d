"""The command line ``visor``: one function a command; what a command needs is imported when it runs."""

from collections.abc import Callable

import typer

from visor import errors
from visor.cli import black_box, judging, photos, pipeline, recognition, report
from visor.cli.app import serve_app, unlock

app = typer.Typer(
    name="visor",
    help="Attack and defend face models in one reproducible pipeline. Run from the project's root; "
    "`dvc repro` runs the pipeline itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "detect": photos.detect,
    "protect": photos.protect,
    "crop": recognition.crop,
    "identify": recognition.identify,
    "impersonate": recognition.impersonate,
    "dodge": recognition.dodge,
    "range": black_box.serve_range,
    "query": black_box.query,
    "judge": judging.judge,
    "eval": judging.evaluate,
    "fit-vae": judging.fit_vae,
    "app": serve_app,
    "unlock": unlock,
    "params": pipeline.params,
    "gate": pipeline.gate,
    "lock": pipeline.lock,
    "mirror": pipeline.mirror,
    "report": report.report,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 1."""
    errors.run(lambda *words: app(list(words)))

"""The command line ``visor``: one function a command; what a command needs is imported when it runs."""

from collections.abc import Callable

import typer

from visor.cli import detection, pipeline, recognition, services, suspect
from visor.cli.app import serve_app, unlock
from visor.core import errors

app = typer.Typer(
    name="visor",
    help="Attack and defend face models in one reproducible pipeline. Run from the project's root; "
    "`dvc repro` runs the pipeline itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "detect": detection.detect,
    "protect": detection.protect,
    "crop": recognition.crop,
    "identify": recognition.identify,
    "impersonate": recognition.impersonate,
    "dodge": recognition.dodge,
    "range": services.mock_service,
    "query": services.query,
    "judge": suspect.predict,
    "eval": suspect.evaluate_suspect,
    "fit-vae": suspect.fit_autoencoder,
    "app": serve_app,
    "unlock": unlock,
    "params": pipeline.params,
    "gate": pipeline.gate,
    "lock": pipeline.lock,
    "mirror": pipeline.mirror,
    "report": pipeline.report,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 1."""
    errors.run_cli(lambda *words: app(list(words)))

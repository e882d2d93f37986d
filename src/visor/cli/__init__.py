"""The command line ``visor``: one function a command; what a command needs is imported when it runs."""

import typer

from visor import errors
from visor.cli import judging, photos, pipeline

app = typer.Typer(
    name="visor",
    help="Attack and defend face models in one reproducible pipeline. Run from the project's root; "
    "`dvc repro` runs the pipeline itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (pipeline.params, judging.judge, judging.fit_vae, pipeline.mirror, pipeline.gate, pipeline.lock):
    app.command()(command)
app.command("eval")(judging.evaluate)
app.command()(photos.detect)
app.command()(photos.protect)


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 1."""
    errors.run(lambda *words: app(list(words)))

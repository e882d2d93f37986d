"""The command line ``visor``: one function per command, which imports what it needs when it runs."""

from collections.abc import Callable
from typing import Annotated

import typer

from visor.cli import detection, networks, pipeline, recognition, services, suspect
from visor.cli.app import serve_app, unlock
from visor.core import errors

EXTRAS = {  # optional packages, and the extra of Visor that installs them
    **dict.fromkeys(("dvc", "jinja2", "matplotlib", "mlflow"), "pipeline"),
    **dict.fromkeys(("cryptography", "pyrage", "streamlit", "streamlit_image_coordinates"), "app"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn"), "services"),
    **dict.fromkeys(("boto3", "botocore"), "cloud"),
}
COMMANDS: dict[str, tuple[str, Callable[..., None]]] = {  # with their headings in --help
    "detect": ("Photos", detection.detect),
    "protect": ("Photos", detection.protect),
    "crop": ("Photos", recognition.crop),
    "identify": ("Photos", recognition.identify),
    "impersonate": ("Photos", recognition.impersonate),
    "dodge": ("Photos", recognition.dodge),
    "app": ("App", serve_app),
    "unlock": ("App", unlock),
    "mock-service": ("Face-comparison services", services.mock_service),
    "query": ("Face-comparison services", services.query),
    "check-params": ("Pipeline", pipeline.check_params),
    "check-lock": ("Pipeline", pipeline.check_lock),
    "gate": ("Pipeline", pipeline.gate),
    "compare": ("Pipeline", pipeline.compare),
    "study": ("Pipeline", pipeline.study),
    "track": ("Pipeline", pipeline.track),
    "report": ("Pipeline", pipeline.report),
}
SUSPECT_COMMANDS: dict[str, Callable[..., None]] = {
    "predict": suspect.predict,
    "evaluate": suspect.evaluate_suspect,
    "fit-autoencoder": suspect.fit_autoencoder,
}
FORMER_NAMES = {"range": "mock-service", "params": "check-params", "lock": "check-lock", "mirror": "track"}
FORMER_SUSPECT_NAMES = {"judge": "predict", "eval": "evaluate", "fit-vae": "fit-autoencoder"}

app = typer.Typer(name="visor", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
suspect_app = typer.Typer(no_args_is_help=True, help="Check a suspect network and its images.")
networks_app = typer.Typer()
for name, (panel, command) in COMMANDS.items():
    app.command(name, rich_help_panel=panel)(command)
for name, command in SUSPECT_COMMANDS.items():
    suspect_app.command(name)(command)
networks_app.callback(invoke_without_command=True)(networks.list_networks)
networks_app.command("fetch")(networks.fetch)
for former, name in FORMER_NAMES.items():
    app.command(former, hidden=True)(COMMANDS[name][1])
for former, name in FORMER_SUSPECT_NAMES.items():
    app.command(former, hidden=True)(SUSPECT_COMMANDS[name])
app.add_typer(suspect_app, name="suspect", rich_help_panel="Suspect networks")
app.add_typer(networks_app, name="networks", rich_help_panel="Published networks")


@app.callback(invoke_without_command=True)
def print_version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Attack and defend face models in one reproducible pipeline.

    Commands on photos run anywhere, those on the pipeline in the project's root; `dvc repro` runs the pipeline itself.

    Exit codes: 0, success; 1, a gate or a photo failed, or the disk is full; 2, wrong use or input; 130, Ctrl-C.
    """
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"visor {installed_version('visor')}")


def main() -> None:
    """Run the command line; a mistake of the user ends it with one sentence and exit code 2."""
    errors.run_cli(run)


def run(*arguments: str) -> None:
    """Run a command.

    Raises:
        UserError: The user made a mistake, or an optional package is missing.
        KeyboardInterrupt: The user pressed Ctrl-C.
    """
    try:
        app(list(arguments))
    except SystemExit as end:
        if end.code == errors.INTERRUPTED:  # Typer ends so, without a word.
            raise KeyboardInterrupt from None
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = "app" if arguments[:1] == ("app",) else EXTRAS[package]  # some packages are in two extras
        raise errors.UserError(
            f'this command needs the package {package}; install it with `pip install "visor[{extra}]"`'
        ) from None

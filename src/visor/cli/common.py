"""What commands share: options, output, errors of single photos."""

import functools
import inspect
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from visor.core import errors

Photos = Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.", metavar="PHOTO…")]
Eps = Annotated[str, typer.Option(help="Maximum change per pixel value, as a fraction of the range: 8/255 or 0.03.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files in --out; input photos are never overwritten.")]
ForceFile = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(min=0, max=(1 << 31) - 1, help="Random seed.")]
Threads = Annotated[
    int, typer.Option(min=1, help="Number of threads; results are reproducible only for the same number.")
]


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a NamedTuple by one option for each of its fields.

    Typer reads single parameters only; so commands share groups of options that are defined once.
    """
    parameters = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hints[name] for name in parameters if hasattr(hints[name], "_fields")}

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field: values.pop(field) for field in group._fields})
        command(**values)

    expanded: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        group = groups.get(name)
        fields = get_type_hints(group, include_extras=True) if group else {name: hints[name]}
        defaults = group._field_defaults if group else {name: parameter.default}
        for field, hint in fields.items():
            default = defaults.get(field, parameter.empty)
            expanded.append(inspect.Parameter(field, parameter.KEYWORD_ONLY, default=default, annotation=hint))
    run.__signature__ = inspect.Signature(expanded)  # type: ignore[attr-defined]
    return run


def parse_eps(text: str) -> float:
    """Parse --eps: a number or a fraction in [1/255, 1].

    Raises:
        UserError: It is not a number, or out of range.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / float(denominator if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise errors.UserError(f"--eps {text} is not a number; use 8/255 or 0.03") from None
    if not 1 / 255 <= value <= 1:
        raise errors.UserError(f"--eps {text} is out of range; use a number from 1/255, one level of a pixel, to 1")
    return value


def configure(threads: int, seed: int) -> None:
    """Import TensorFlow with this number of threads and this seed."""
    from visor.core.params import ComputeParams
    from visor.models.training import configure_tensorflow

    configure_tensorflow(ComputeParams(threads=threads, deterministic=True), seed)


def exit_on_sigterm() -> None:
    """End by an exception on SIGTERM, so that a half-written file is removed."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def echo(text: str) -> None:
    """Print a text, with escapes in file names that are not UTF-8; those in JSON are reversible."""
    typer.echo(text.encode(errors="backslashreplace").decode())


def report_error(message: str, messages: list[str]) -> None:
    """Print and keep what is wrong with one input; the command continues with the others."""
    messages.append(message)
    typer.echo(f"error: {message}", err=True)


def warn(message: str) -> None:
    """Print a message that is not an error."""
    typer.echo(message, err=True)


def exit_if_failed(messages: list[str]) -> None:
    """End with the exit code of failed photos if there were errors."""
    if messages:
        raise typer.Exit(errors.FAILED)


def format_face_count(faces: int) -> str:
    """Return a number of faces as text."""
    return "1 face" if faces == 1 else f"{faces or 'no'} faces"


def format_box(box: tuple[float, float, float, float]) -> str:
    """Return a box [x, y, w, h] as text."""
    x, y, width, height = box
    return f"{width:.0f}×{height:.0f} at ({x:.0f}, {y:.0f})"

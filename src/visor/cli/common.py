"""What the commands on photos have in common: options, what they say, and how they end."""

from pathlib import Path
from typing import Annotated

import typer

from visor.core import errors

Photos = Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.", metavar="PHOTO…")]
Eps = Annotated[str, typer.Option(help="Largest change of a pixel: 8/255 or 0.03, of the whole range.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is in --out; never a photo that is read.")]
Threads = Annotated[int, typer.Option(min=1, help="The bytes written depend on it.")]


def parse_eps(words: str) -> float:
    """Return the number that --eps is.

    Raises:
        UserError: it is none, or out of range.
    """
    top, slash, bottom = words.partition("/")
    try:
        value = float(top) / float(bottom if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise errors.UserError(f"--eps {words} is no number; write 8/255 or 0.03") from None
    if not 1 / 255 <= value <= 1:
        raise errors.UserError(f"--eps {words} is out of range; it must be from 1/255, one level of a pixel, to 1")
    return value


def configure(threads: int, seed: int) -> None:
    """Import TensorFlow, pinned to threads and seed."""
    from visor.core.params import ComputeParams
    from visor.models.training import configure_tensorflow

    configure_tensorflow(ComputeParams(threads=threads, deterministic=True), seed)


def echo(words: str) -> None:
    """Print, a file name that is no UTF-8 with escapes; those in JSON give the name back."""
    typer.echo(words.encode(errors="backslashreplace").decode())


def report_error(words: str, refused: list[str]) -> None:
    """Keep and say what is wrong with an input; the others go on."""
    refused.append(words)
    typer.echo(f"error: {words}", err=True)


def warn(words: str) -> None:
    """Say what is left out; that is no error."""
    typer.echo(words, err=True)


def exit_if_failed(refused: list[str]) -> None:
    """End with exit code 1 if anything was refused."""
    if refused:
        raise typer.Exit(1)


def format_face_count(faces: int) -> str:
    """Return a number of faces in words."""
    return "1 face" if faces == 1 else f"{faces or 'no'} faces"


def format_box(box: tuple[float, float, float, float]) -> str:
    """Return a box [x, y, w, h] in words."""
    x, y, width, height = box
    return f"{width:.0f}×{height:.0f} at ({x:.0f}, {y:.0f})"

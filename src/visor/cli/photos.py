"""The commands ``visor detect`` and ``visor protect``, on people's own photos."""

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from visor import errors

if TYPE_CHECKING:
    from visor.protection.album import Face, Protected

Photos = Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.", metavar="PHOTO…")]
Name = Annotated[str, typer.Option("--detector", help="mtcnn, ssd, faster_rcnn, cascade, or a frozen graph FILE.pb.")]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="Score from which on a box is a face; else the detector's own.")
]
Options = Annotated[list[str] | None, typer.Option("--option", help="NAME=VALUE for the detector; can be repeated.")]
Mask = Annotated[
    Literal["faces", "none"], typer.Option(help="faces: perturb inside their boxes, enlarged, alone; none: everywhere.")
]
Objective = Annotated[
    Literal["suppress", "boxes", "areas", "training_loss"], typer.Option(help="What the attack maximises.")
]
Threads = Annotated[int, typer.Option(min=1, help="The bytes written depend on it.")]


def detect(
    photos: Photos,
    detector: Name = "mtcnn",
    threshold: Threshold = None,
    option: Options = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: file → boxes [x, y, w, h] and scores.")] = False,
    threads: Threads = 2,
) -> None:
    """Find the faces in photos: a line a face, with its box in pixels and its score."""
    from visor.protection.photos import gather

    found = gather(photos)  # before TensorFlow takes its seconds
    _configure(threads, 1)
    from visor.protection import album, choice

    refused: list[str] = []
    eyes = choice.open_detector(detector, threshold, option or [])
    faces = album.detect_photos(eyes, found, lambda words: _refuse(words, refused))
    if as_json:
        _say(json.dumps(album.as_json(faces), indent=2, ensure_ascii=False))
    for file, own in faces.items() if not as_json else ():
        _say(f"{file}: {_count(len(own))}")
        for face in own:
            _say(f"  {_place(face.box)}  score {face.score:.3f}")
    _end(refused)


def protect(
    photos: Photos,
    out: Annotated[Path, typer.Option(help="Folder for the protected photos, as PNG.")],
    detector: Name = "mtcnn",
    eps: Annotated[str, typer.Option(help="Largest change of a pixel: 8/255 or 0.03, of the whole range.")] = "8/255",
    iterations: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 40,
    mask: Mask = "none",
    side: Annotated[int, typer.Option(min=64, max=2048, help="Longer side of the copy that is attacked.")] = 1024,
    attempts: Annotated[int, typer.Option(min=1, help="Searches that a photo is worth.")] = 2,
    threshold: Threshold = None,
    option: Options = None,
    objective: Objective = "suppress",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite what is in --out; never a photo that is read.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    threads: Threads = 2,
) -> None:
    """Hide the faces in photos from a detector; say what became of each, by the PNG that was written."""
    from visor.protection import photos as files

    bound = _eps(eps)
    found = files.gather(photos)
    _configure(threads, seed)
    from visor.protection import album, choice
    from visor.protection.hiding import Settings

    album.require_free(found, out, force)
    eyes = choice.open_detector(detector, threshold, option or [])
    settings = Settings(bound, iterations, objective, mask, side=side, attempts=attempts, seed=seed)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # a half-written PNG is deleted on the way
    refused: list[str] = []
    done = album.protect_photos(eyes, found, out, settings, lambda words: _refuse(words, refused))
    ends = [face.fate for one in done for face in _told(one)]
    if left := len(ends) - ends.count("vanished"):
        typer.echo(f"{left} of {_count(len(ends))} still found", err=True)
    _end(refused)


def _told(done: "Protected") -> list["Face"]:
    """Say what became of a photo and its faces, and return these."""
    boxes = f", {done.new} new box{'es' if done.new > 1 else ''}" if done.new else ""
    _say(f"{done.photo.path} → {done.path}: {_count(len(done.faces))}{boxes}")
    for face in done.faces:
        _say(f"  {_place(face.box)}  score {face.score:.3f}  {face.fate}")
    return done.faces


def _eps(words: str) -> float:
    top, slash, bottom = words.partition("/")
    try:
        value = float(top) / float(bottom if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise errors.UserError(f"--eps {words} is no number; write 8/255 or 0.03") from None
    if not 1 / 255 <= value <= 1:
        raise errors.UserError(f"--eps {words} is out of range; it must be from 1/255, one level of a pixel, to 1")
    return value


def _configure(threads: int, seed: int) -> None:
    import visor.quiet  # noqa: F401 - before anything imports TensorFlow
    from visor.params import Compute
    from visor.training import configure

    configure(Compute(threads=threads, deterministic=True), seed)


def _say(words: str) -> None:
    """Print, a file name that is no UTF-8 with escapes; those in JSON give the name back."""
    typer.echo(words.encode(errors="backslashreplace").decode())


def _refuse(words: str, refused: list[str]) -> None:
    refused.append(words)
    typer.echo(f"error: {words}", err=True)


def _end(refused: list[str]) -> None:
    if refused:
        raise typer.Exit(1)


def _count(faces: int) -> str:
    return "1 face" if faces == 1 else f"{faces or 'no'} faces"


def _place(box: tuple[float, float, float, float]) -> str:
    x, y, width, height = box
    return f"{width:.0f}×{height:.0f} at ({x:.0f}, {y:.0f})"

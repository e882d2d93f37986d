"""The commands ``visor detect`` and ``visor protect``, on people's own photos."""

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from visor.cli import terminal

if TYPE_CHECKING:
    from visor.protection.album import Face, Protected

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


def detect(
    photos: terminal.Photos,
    detector: Name = "mtcnn",
    threshold: Threshold = None,
    option: Options = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: file → boxes [x, y, w, h] and scores.")] = False,
    threads: terminal.Threads = 2,
) -> None:
    """Find the faces in photos: a line a face, with its box in pixels and its score."""
    from visor.protection.photos import gather

    found = gather(photos)  # before TensorFlow takes its seconds
    terminal.configure(threads, 1)
    from visor.protection import album, choice

    refused: list[str] = []
    eyes = choice.open_detector(detector, threshold, option or [])
    faces = album.detect_photos(eyes, found, lambda words: terminal.refuse(words, refused))
    if as_json:
        terminal.say(json.dumps(album.as_json(faces), indent=2, ensure_ascii=False))
    for file, own in faces.items() if not as_json else ():
        terminal.say(f"{file}: {terminal.count(len(own))}")
        for face in own:
            terminal.say(f"  {terminal.place(face.box)}  score {face.score:.3f}")
    terminal.end(refused)


def protect(
    photos: terminal.Photos,
    out: Annotated[Path, typer.Option(help="Folder for the protected photos, as PNG.")],
    detector: Name = "mtcnn",
    eps: terminal.Eps = "8/255",
    iterations: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 40,
    mask: Mask = "none",
    side: Annotated[int, typer.Option(min=64, max=2048, help="Longer side of the copy that is attacked.")] = 1024,
    attempts: Annotated[int, typer.Option(min=1, help="Searches that a photo is worth.")] = 2,
    threshold: Threshold = None,
    option: Options = None,
    objective: Objective = "suppress",
    force: terminal.Force = False,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    threads: terminal.Threads = 2,
) -> None:
    """Hide the faces in photos from a detector; say what became of each, by the PNG that was written."""
    from visor.protection import photos as files

    bound = terminal.level(eps)
    found = files.gather(photos)
    terminal.configure(threads, seed)
    from visor.protection import album, choice
    from visor.protection.hiding import Settings

    files.require_free(found, out, force)
    eyes = choice.open_detector(detector, threshold, option or [])
    settings = Settings(bound, iterations, objective, mask, side=side, attempts=attempts, seed=seed)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # a half-written PNG is deleted on the way
    refused: list[str] = []
    done = album.protect_photos(eyes, found, out, settings, lambda words: terminal.refuse(words, refused))
    ends = [face.fate for one in done for face in _told(one)]
    if left := len(ends) - ends.count("vanished"):
        typer.echo(f"{left} of {terminal.count(len(ends))} still found", err=True)
    terminal.end(refused)


def _told(done: "Protected") -> list["Face"]:
    """Say what became of a photo and its faces, and return these."""
    boxes = f", {done.new} new box{'es' if done.new > 1 else ''}" if done.new else ""
    terminal.say(f"{done.photo.path} → {done.path}: {terminal.count(len(done.faces))}{boxes}")
    for face in done.faces:
        terminal.say(f"  {terminal.place(face.box)}  score {face.score:.3f}  {face.fate}")
    return done.faces
